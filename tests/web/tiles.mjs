// Calls a function of the page's tiles.js: node tiles.mjs MODULE FUNCTION '[arguments]', for tests/test_web.py.

const [module, name, given] = process.argv.slice(2);
const tiles = await import(module), values = JSON.parse(given);
const numbers = {Float32Array, Uint8Array};

// The "network" adds something else at every position of a tile, so that no two tiles agree where they overlap.
async function translated([size, file, rgba]) {
  const output = [];
  const finished = await tiles.translate(size, {...file, Numbers: numbers[file.Numbers]}, {
    read: (left, top, width, height) => Uint8ClampedArray.from({length: 4 * width * height}, (_, i) => {
      const pixel = Math.floor(i / 4), row = top + Math.floor(pixel / width), column = left + pixel % width;
      return rgba[4 * (row * size.width + column) + i % 4];
    }),
    run: async tensor => Float32Array.from(tensor, (level, i) => (255 - level) / 2 + i % 97),
    write: (top, rows) => { output[top] = [...rows]; },
    goOn: async done => done !== file.stopsAfter,
  });
  return finished && output.flat();
}

if (name === "toTensor") values[5] = numbers[values[5]];
const result = name === "translate" ? await translated(values) : tiles[name](...values);
console.log(JSON.stringify(result, (_, value) => ArrayBuffer.isView(value) ? [...value] : value));
