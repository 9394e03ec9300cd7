// Pictures of any size through a file that takes one size, in overlapping tiles. No DOM, so that node can test it.
// The rule is that of tfi2i/tiling.py with multiple=1; smaller pictures are mirrored as tfi2i/methods/sizes.py says.

// Where the tiles begin along a side of `length` pixels.
export function tileStarts(length, tile, overlap) {
  const starts = [], last = length - tile;
  for (let start = 0; start < last; start += tile - overlap) starts.push(start);
  return [...starts, Math.max(last, 0)];
}

// Per tile, its weights along one side: sin² and cos² in an overlap of two. At every pixel all weights add up to 1.
export function tileWeights(starts, length, tile, overlap) {
  const side = Math.min(tile, length), total = new Float64Array(length);
  const ramp = i => Math.sin((Math.PI / 2) * Math.min((i + 0.5) / Math.max(overlap, 1e-6), 1)) ** 2;
  const windows = starts.map(start => Float64Array.from({length: side}, (_, i) =>
    (start > 0 ? ramp(i) : 1) * (start + side < length ? ramp(side - 1 - i) : 1)));
  windows.forEach((window, k) => window.forEach((w, i) => { total[starts[k] + i] += w; }));
  return windows.map((window, k) => Float32Array.from(window, (w, i) => w / total[starts[k] + i]));
}

// How a side of `length` pixels becomes `padded` long: mirrored without repeating the edge. `before` pixels are added
// before the first one, and `source` says which one every pixel shows.
export function mirrored(length, padded) {
  const before = Math.floor((padded - length) / 2), period = Math.max(2 * (length - 1), 1);
  const source = Int32Array.from({length: padded}, (_, i) => {
    const position = (((i - before) % period) + period) % period;
    return Math.min(position, period - position);
  });
  return {before, source};
}

// RGBA pixels of `width` columns → what a file takes: the pixels at `rows` × `columns`, in levels from 0 to 255.
// Grey is the luma of Pillow's "L".
export function toTensor(rgba, width, rows, columns, channels, Numbers) {
  const tensor = new Numbers(rows.length * columns.length * channels);
  let k = 0;
  for (const row of rows) for (const column of columns) {
    const i = 4 * (row * width + column);
    if (channels === 1) tensor[k++] = (19595 * rgba[i] + 38470 * rgba[i + 1] + 7471 * rgba[i + 2] + 32768) >> 16;
    else for (let c = 0; c < 3; c++) tensor[k++] = rgba[i + c];
  }
  return tensor;
}

// The sizes that a picture can be translated at: its own and its halves, in tiles, and last as a whole in one tile.
export function sizeChoices(size, file) {
  const choices = [];
  for (let {height, width} = size; ; height = Math.round(height / 2), width = Math.round(width / 2)) {
    const along = (side, tile) => tileStarts(side, tile, file.overlap).length;
    const tiles = along(height, file.height) * along(width, file.width);
    choices.push({height, width, tiles, whole: false});
    if (tiles === 1) break;
  }
  const {height, width} = file;
  if (size.height !== height || size.width !== width) choices.push({height, width, tiles: 1, whole: true});
  return choices;
}

// Translates a picture. Only one row of tiles is held as numbers, which bounds the memory: a row is written as soon as
// no later tile reaches it.
//
//   size: {height, width} of the picture
//   file: {height, width, channels, channelsOut, Numbers, overlap}: the tile, and the typed array that it is given as
//   read(left, top, width, height) → RGBA pixels of that part of the picture
//   run(tensor) → promise of the tile's translation, height × width × channelsOut
//   write(top, rgba, height): takes finished rows, all columns
//   goOn(done, total) → promise of whether to go on, after every tile
//
// The promise is false when goOn said so.
export async function translate(size, file, {read, run, write, goOn}) {
  const tops = tileStarts(size.height, file.height, file.overlap);
  const lefts = tileStarts(size.width, file.width, file.overlap);
  const weightsY = tileWeights(tops, size.height, file.height, file.overlap);
  const weightsX = tileWeights(lefts, size.width, file.width, file.overlap);
  const height = Math.min(size.height, file.height), width = Math.min(size.width, file.width);
  const rows = mirrored(height, file.height), columns = mirrored(width, file.width);
  const total = tops.length * lefts.length, line = size.width * 3;
  let band = new Float32Array(height * line), done = 0;
  for (let y = 0; y < tops.length; y++) {
    for (let x = 0; x < lefts.length; x++) {
      const rgba = read(lefts[x], tops[y], width, height);
      const tile = await run(toTensor(rgba, width, rows.source, columns.source, file.channels, file.Numbers));
      for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) {
        const weight = weightsY[y][i] * weightsX[x][j], to = i * line + 3 * (lefts[x] + j);
        const from = ((rows.before + i) * file.width + columns.before + j) * file.channelsOut;
        for (let c = 0; c < 3; c++) band[to + c] += weight * tile[from + (file.channelsOut === 1 ? 0 : c)];
      }
      if (!await goOn(++done, total)) return false;
    }
    const finished = (y + 1 < tops.length ? tops[y + 1] : size.height) - tops[y];
    write(tops[y], toPixels(band, finished * size.width), finished);
    band.copyWithin(0, finished * line);
    band.fill(0, (height - finished) * line);
  }
  return true;
}

// Levels, three a pixel, → RGBA; Uint8ClampedArray rounds to the nearest level, halves to the even one, and clips.
function toPixels(levels, pixels) {
  const rgba = new Uint8ClampedArray(4 * pixels).fill(255);
  for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) rgba[4 * i + c] = levels[3 * i + c];
  return rgba;
}
