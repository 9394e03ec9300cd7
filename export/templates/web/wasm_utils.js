// What LiteRT.js imports of its sister package: runs a script of its WebAssembly build, and wraps what that makes.
export async function createWasmLib(Library, script) {
  await new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${script} is missing on the server.`));
    element.src = script;
    document.body.append(element);
  });
  const library = new Library(await self.ModuleFactory());
  self.ModuleFactory = undefined;
  return library;
}
