// Opens the page of --formats=web in Chromium, does what it is told, and prints what came of it, for tests/test_web.py.
//
//   node visit.mjs '{"url": …, "chromium": PATH, "flags": […], "steps": [{"drop": PATH, "save": PATH}, …]}'
//
// A step does one of: put, drop or paste a file; take a picture by the camera; choose the last size, the whole picture;
// choose an accelerator. It ends when the page has translated or says something. Then `save` saves the translation, and
// `screen` takes a screenshot. Printed is a list with what the page said first and after every step.

import {readFile} from "node:fs/promises";
import {basename} from "node:path";
import {chromium} from "playwright-core";

const {url, chromium: executablePath, flags = [], steps = [], context = {}} = JSON.parse(process.argv[2]);
const errors = [], elsewhere = [];

const browser = await chromium.launch({executablePath, args: ["--no-sandbox", ...flags]});
const page = await browser.newPage(context);
page.on("pageerror", error => errors.push(String(error)));
page.on("request", request => {
  if (!/^(blob|data):/.test(request.url()) && new URL(request.url()).host !== new URL(url).host) {
    elsewhere.push(request.url());
  }
});

// A DataTransfer with the file, dispatched as the event of a drop or a paste.
async function give(path, event) {
  const file = {name: basename(path), bytes: (await readFile(path)).toString("base64")};
  await page.evaluate(([{name, bytes}, type]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name));
    document.dispatchEvent(type === "drop" ? new DragEvent(type, {dataTransfer: data})
      : new ClipboardEvent(type, {clipboardData: data}));
  }, [file, event]);
}

async function act(step) {
  if (step.put) await page.setInputFiles("#file", step.put);
  if (step.drop) await give(step.drop, "drop");
  if (step.paste) await give(step.paste, "paste");
  if (step.whole) await page.selectOption("#size", {index: await page.locator("#size option").count() - 1});
  if (step.accelerator) await page.locator(`[value=${step.accelerator}] + span`).click();
  if (step.camera) {
    await page.locator("#invitation .camera").click();
    await page.waitForFunction(() => document.querySelector("video").videoWidth > 0);
    await page.locator("#take").click();
  }
}

const said = async () => page.evaluate(() => {
  const text = id => document.getElementById(id).textContent;
  return {
    state: document.documentElement.dataset.state, message: text("message"), facts: text("facts"), notes: text("notes"),
    about: text("about"), sizes: [...document.getElementById("size").options].map(option => option.text),
    closed: document.getElementById("closed").checkVisibility({visibilityProperty: true}),
  };
});

const came = [];
await page.goto(url);
await page.waitForFunction(() => /ready|failed/.test(document.documentElement.dataset.state)
  || document.getElementById("closed").checkVisibility({visibilityProperty: true}));
came.push(await said());
for (const step of steps) {
  await page.evaluate(() => {
    document.documentElement.dataset.state = "asked";
    document.getElementById("message").textContent = "";
  });
  await act(step);
  await page.waitForFunction(() => document.documentElement.dataset.state === "done"
    || document.documentElement.dataset.state === "asked" && document.getElementById("message").textContent,
    null, {timeout: 300_000});
  if (step.save) {
    const download = page.waitForEvent("download");
    await page.locator("#save").click();
    await (await download).saveAs(step.save);
  }
  if (step.screen) await page.screenshot({path: step.screen, animations: "disabled"});
  came.push(await said());
}
await browser.close();
console.log(JSON.stringify({came, errors, elsewhere}));
