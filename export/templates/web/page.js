// The page: a picture goes in, the LiteRT file that model.json names translates it, and both stand side by side.
// html[data-state] says what the page does: loading, ready, working, done, or failed where no model could be loaded.

import {getWebGpuDevice, loadAndCompile, loadLiteRt, supportsFeature, Tensor} from "./litert_js/dist/index.js";
import {sizeChoices, translate} from "./tiles.js";

// The largest canvas of iOS has as many pixels; larger pictures are shrunk.
const MOST_PIXELS = 2 ** 24;

const element = id => document.getElementById(id);
const state = name => { document.documentElement.dataset.state = name; };
const say = text => { element("message").textContent = text; };
const count = n => n.toLocaleString("en");

let about, threads, model, accelerator;  // of the model that is loaded
let picture = null;  // {bitmap, name, size, choices} of what is shown
let given = 0;  // pictures so far; only the latest one is shown
let current = 0, work = Promise.resolve();  // Jobs follow one another; only the latest translation goes on.

// --------------------------------------------------------------------------------------------------- the model

async function load() {
  state("loading");
  element("facts").textContent = "The model is loading.";
  about = await (await get("model.json")).json();
  const several = crossOriginIsolated && await supportsFeature("threads") && await supportsFeature("relaxedSimd");
  const liteRt = await loadLiteRt("./litert_js/wasm/", {threads: several});
  threads = liteRt.liteRtWasm.getThreadCount();
  if (!crossOriginIsolated) {
    note("The CPU computes with one thread, because the server does not send the headers that _headers lists.");
  } else if (!several) {
    note("The CPU computes with one thread, because this browser has no threads with relaxed SIMD.");
  }
  const gpu = getWebGpuDevice();
  if (gpu) {
    await open("webgpu");
  } else {
    const reason = navigator.gpu ? "WebGPU finds no GPU" : isSecureContext ? "this browser has no WebGPU"
      : "WebGPU needs an address with https:// or localhost";
    await withoutGpu(reason);
  }
  const {weights, data} = about.licenses ?? {weights: "not stated", data: "not stated"};
  element("about").textContent = `${about.method}, ${about.direction}, exported by tfi2i ${about.versions.tfi2i}. ` +
    `Licences: weights ${weights}, training pictures ${data}; page and LiteRT.js Apache-2.0.`;
  element("facts").textContent = `Ready on the ${where()}`;
  state("ready");
}

// Loads the file for an accelerator and runs it once, because a GPU compiles its programs in the first run.
async function open(wanted) {
  const bytes = new Uint8Array(await (await get(about.web[wanted])).arrayBuffer());
  model?.delete();
  model = null;
  accelerator = wanted;
  try {
    model = await loadAndCompile(bytes, {accelerator: wanted});
    if (wanted === "webgpu" && !(model.options.accelerator === wanted && model.isFullyAccelerated)) {
      throw new Error("it does not take the whole model");
    }
    const {height, width, channels, Numbers} = file();
    const first = await run(new Numbers(height * width * channels).fill(127));
    if (!first.every(Number.isFinite)) throw new Error("it gives values that are no numbers");
  } catch (error) {
    if (wanted === "wasm") throw error;
    return withoutGpu(`the GPU failed, ${error.message}`);
  }
  element("accelerators").querySelector(`[value=${wanted}]`).checked = true;
}

async function withoutGpu(reason) {
  note(`The page runs on the CPU: ${reason}.`);
  element("accelerators").querySelector("[value=webgpu]").disabled = true;
  await open("wasm");
}

// What tiles.js has to know of the file that is loaded.
function file() {
  const [, height, width, channels] = about.litert.input.shape;
  const ends = about.litert.files[about.web[accelerator]];
  const Numbers = {float32: Float32Array, uint8: Uint8Array}[ends.input.dtype];
  return {height, width, channels, channelsOut: about.litert.output.shape[3], Numbers, overlap: about.web.overlap};
}

async function run(tensor) {
  const input = new Tensor(tensor, about.litert.input.shape);
  try {
    let [output] = await model.run(input);
    if (output.accelerator === "webgpu") output = await output.moveTo("wasm");
    const values = output.toTypedArray();
    output.delete();
    return values;
  } finally {
    input.delete();  // LiteRT.js frees nothing by itself
  }
}

async function get(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing on the server (status ${response.status}).`);
  return response;
}

function where() {
  return accelerator === "webgpu" ? "GPU (WebGPU)" : `CPU (WebAssembly, ${threads} thread${threads > 1 ? "s" : ""})`;
}

function note(text) {
  const item = document.createElement("li");
  item.textContent = text;
  element("notes").append(item);
}

// ------------------------------------------------------------------------------------------------- the picture

// Shows a Blob that somebody gave, or a frame of the camera, and translates it.
async function show(source, name) {
  const latest = ++given;
  closeCamera();
  say("");
  if (!await loaded) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(source, {imageOrientation: "from-image"});
  } catch {
    say(`${name} cannot be read as a picture. Give a JPEG, PNG or WebP file.`);
    return;
  }
  if (latest !== given) return;
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const size = {height: Math.floor(bitmap.height * shrink), width: Math.floor(bitmap.width * shrink)};
  if (shrink < 1) say(`${name} was shrunk to ${size.width} × ${size.height} pixels, which every browser can hold.`);
  picture?.bitmap.close();
  picture = {bitmap, name, size, choices: sizeChoices(size, file())};
  draw(element("before"), size);
  const pair = element("pair").style;
  pair.setProperty("--ratio", size.width / size.height);
  pair.setProperty("--natural", size.width);
  element("stage").dataset.shows = "pair";

  element("size").replaceChildren(...picture.choices.map(({height, width, tiles, whole}, i) => {
    const how = whole ? "the whole picture at once" : tiles === 1 ? "at once" : `${count(tiles)} tiles`;
    return new Option(`${width} × ${height}, ${how}`, i);
  }));
  element("size").selectedIndex = about.web.fit === "resize" ? picture.choices.length - 1 : 0;
  translatePicture();
}

// The picture on a canvas of that size, transparent parts over the background of the training.
function draw(canvas, {height, width}) {
  [canvas.height, canvas.width] = [height, width];
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.fillStyle = `rgb(${about.web.background})`;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture.bitmap, 0, 0, width, height);
  return context;
}

function translatePicture() {
  const job = ++current;
  enqueue(() => job === current && translateNow(job));
}

// Does something after all that is being done, as a model cannot be exchanged while it runs.
function enqueue(task) {
  work = work.then(task).catch(error => {
    say(`The picture could not be translated: ${error.message}`);
    stopped("");
  });
}

async function translateNow(job) {
  state("working");
  element("facts").textContent = "Translating";
  const choice = picture.choices[element("size").selectedIndex], after = element("after");
  const from = draw(document.createElement("canvas"), choice);
  [after.height, after.width] = [choice.height, choice.width];
  const to = after.getContext("2d", {willReadFrequently: true});
  split(0);
  const times = [], began = performance.now();
  let rested = began;
  const goOn = async (done, total) => {
    element("progress").value = done / total;
    if (performance.now() - rested > 50) {  // lets the browser draw, and a click on Stop arrive
      await new Promise(resolve => setTimeout(resolve));
      rested = performance.now();
    }
    return job === current;
  };
  const timed = async tensor => {
    const start = performance.now(), values = await run(tensor);
    times.push(performance.now() - start);
    return values;
  };
  try {
    const finished = await translate(choice, file(), {
      read: (left, top, width, height) => from.getImageData(left, top, width, height).data,
      run: timed,
      write: (top, rgba, height) => to.putImageData(new ImageData(rgba, choice.width, height), 0, top),
      goOn,
    });
    if (!finished) return;
  } catch (error) {
    if (accelerator !== "webgpu") throw error;
    await withoutGpu(`the GPU failed, ${error.message}`);
    return translateNow(job);
  }
  if (choice.whole) {
    const small = await createImageBitmap(after);
    [after.height, after.width] = [picture.size.height, picture.size.width];
    to.imageSmoothingQuality = "high";
    to.drawImage(small, 0, 0, after.width, after.height);
  }
  const each = `${(times.reduce((a, b) => a + b) / times.length).toFixed(1)} ms`, all = performance.now() - began;
  const whole = all < 1000 ? `${all.toFixed(0)} ms` : `${(all / 1000).toFixed(1)} s`;
  element("facts").textContent = times.length === 1 ? `${where()}: ${each}`
    : `${where()}: ${count(times.length)} tiles, ${each} each, ${whole} in all`;
  split(50);
  state("done");
}

// Ends a translation that is not complete.
function stopped(text) {
  element("facts").textContent = text;
  state("done");
}

function save() {
  element("after").toBlob(blob => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${picture.name.replace(/\.\w+$/, "")}_translated.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

function split(percent) {
  element("split").value = percent;
  element("pair").style.setProperty("--split", percent);
}

// -------------------------------------------------------------------------------------------------- the camera

async function openCamera() {
  say("");
  try {
    if (!navigator.mediaDevices) throw new Error("it needs an address with https:// or localhost");
    element("video").srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    element("stage").dataset.shows = "live";
  } catch (error) {
    say(`The camera cannot be used: ${error.message}.`);
  }
}

function closeCamera() {
  const video = element("video");
  video.srcObject?.getTracks().forEach(track => track.stop());
  video.srcObject = null;
  element("stage").dataset.shows = picture ? "pair" : "";
}

// ------------------------------------------------------------------------------------------- what people can do

function take(files) {
  if (files.length) show(files[0], files[0].name);
  else say("That is no file. Save the picture first, then drop or choose the file.");
}

function listen() {
  const stage = element("stage"), pair = element("pair"), input = element("file");
  document.querySelectorAll(".choose").forEach(button => button.addEventListener("click", () => input.click()));
  document.querySelectorAll(".camera").forEach(button => button.addEventListener("click", openCamera));
  input.addEventListener("change", () => { take(input.files); input.value = ""; });
  document.addEventListener("dragover", event => { event.preventDefault(); stage.classList.add("over"); });
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", event => {
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", event => take(event.clipboardData.files));
  element("take").addEventListener("click", async () => show(await createImageBitmap(element("video")), "camera"));
  element("leave").addEventListener("click", closeCamera);
  element("stop").addEventListener("click", () => { current++; stopped("Stopped"); });
  element("save").addEventListener("click", save);
  element("size").addEventListener("change", translatePicture);
  element("accelerators").addEventListener("change", ({target}) => {
    enqueue(() => open(target.value));
    translatePicture();
  });
  element("split").addEventListener("input", ({target}) => split(target.value));
  const drag = event => {
    const {left, width} = pair.getBoundingClientRect();
    split(Math.min(100, Math.max(0, 100 * (event.clientX - left) / width)));
  };
  pair.addEventListener("pointerdown", event => {
    pair.setPointerCapture(event.pointerId);
    pair.classList.add("dragged");
    drag(event);
  });
  pair.addEventListener("pointermove", event => { if (pair.hasPointerCapture(event.pointerId)) drag(event); });
  pair.addEventListener("pointerup", () => {
    pair.classList.remove("dragged");
    element("split").focus({preventScroll: true});  // arrow keys go on from here
  });
}

// Whether there is a model. Pictures that are given before wait for it.
const loaded = load().then(() => true, error => {
  say(`The model cannot be loaded: ${error.message}`);
  element("facts").textContent = "";
  state("failed");
  return false;
});
listen();
