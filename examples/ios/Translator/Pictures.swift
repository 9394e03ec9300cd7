/// Pictures as the files of `tfi2i export` take and give them: sizes, tiles and numbers.
///
/// Nothing here needs iOS: `make test-apps SWIFTC=swiftc` runs it on a desktop and compares it with tfi2i.

import Foundation

/// Levels from 0 to 255, rows from the top, channels last: red, green and blue, or grey.
struct Picture {
    let width: Int
    let height: Int
    let channels: Int
    let levels: [UInt8]
}

/// A sentence for whoever holds the phone.
struct Failure: LocalizedError {
    let errorDescription: String?

    init(_ sentence: String) { errorDescription = sentence }
}

/// What a file takes or gives, as model.json says: a level is scale * (integer - zeroPoint), floats are levels.
struct End {
    let dtype: String
    let scale: Double
    let zeroPoint: Int

    init(dtype: String, scale: Double, zeroPoint: Int) throws {
        guard ["uint8", "int8", "float32"].contains(dtype) else {
            throw Failure(
                "the file has pixels of type \(dtype): export with --io=uint8, int8 or float32, and not as int16x8")
        }
        (self.dtype, self.scale, self.zeroPoint) = (dtype, scale, zeroPoint)
    }
}

/// A picture of bytes that are red, green, blue and one more, without transparency. Grey is ITU-R 601, as Pillow's.
func pictureOf(_ rgbx: [UInt8], width: Int, height: Int, channels: Int) -> Picture {
    var levels = [UInt8](repeating: 0, count: width * height * channels)
    for i in 0..<width * height {
        let (red, green, blue) = (Int(rgbx[4 * i]), Int(rgbx[4 * i + 1]), Int(rgbx[4 * i + 2]))
        if channels == 1 {
            levels[i] = UInt8((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)
        } else {
            levels[3 * i] = UInt8(red)
            levels[3 * i + 1] = UInt8(green)
            levels[3 * i + 2] = UInt8(blue)
        }
    }
    return Picture(width: width, height: height, channels: channels, levels: levels)
}

/// The largest width and height of a picture's shape that fit into another size.
func fitted(_ width: Int, _ height: Int, into maximum: (width: Int, height: Int)) -> (width: Int, height: Int) {
    let scale = min(Double(maximum.width) / Double(width), Double(maximum.height) / Double(height))
    return (
        min(max(Int((Double(width) * scale).rounded()), 1), maximum.width),
        min(max(Int((Double(height) * scale).rounded()), 1), maximum.height)
    )
}

/// A picture of another size, by Pillow's antialiased bicubic filter, which prepared the pictures of the training.
func resized(_ picture: Picture, width: Int, height: Int) -> Picture {
    let wide = resizedAlong(
        picture.levels, outer: picture.height, length: picture.width, inner: picture.channels, newLength: width)
    let levels = resizedAlong(
        wide, outer: 1, length: picture.height, inner: width * picture.channels, newLength: height)
    return Picture(width: width, height: height, channels: picture.channels, levels: levels)
}

/// Resizes the middle axis of [outer, length, inner].
private func resizedAlong(_ levels: [UInt8], outer: Int, length: Int, inner: Int, newLength: Int) -> [UInt8] {
    if newLength == length { return levels }
    let scale = Double(length) / Double(newLength)
    let filterScale = max(scale, 1)
    var result = [UInt8](repeating: 0, count: outer * newLength * inner)
    for target in 0..<newLength {
        let centre = (Double(target) + 0.5) * scale
        let first = max(Int(centre - 2 * filterScale + 0.5), 0)
        let last = min(Int(centre + 2 * filterScale + 0.5), length)
        let weights = (first..<last).map { bicubic((Double($0) - centre + 0.5) / filterScale) }
        let total = weights.reduce(0, +)
        for row in 0..<outer {
            for column in 0..<inner {
                var sum = 0.0
                for (k, weight) in weights.enumerated() {
                    sum += weight * Double(levels[(row * length + first + k) * inner + column])
                }
                result[(row * newLength + target) * inner + column] = UInt8(min(max((sum / total).rounded(), 0), 255))
            }
        }
    }
    return result
}

private func bicubic(_ distance: Double) -> Double {
    let x = abs(distance)
    if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
}

/// Where tiles begin along a side, as `tfi2i.tiling.tile_starts` with multiple = 1.
func tileStarts(_ length: Int, tile: Int, overlap: Int) throws -> [Int] {
    guard 0...tile / 2 ~= overlap else {
        throw Failure("overlap=\(overlap): expected 0 to \(tile / 2), half of tile=\(tile)")
    }
    let last = length - tile
    return last > 0 ? Array(stride(from: 0, to: last, by: tile - overlap)) + [last] : [0]
}

/// Per tile, its weights along a side: sin² where tiles overlap. Over all tiles they add up to 1 at every pixel.
func tileWeights(_ starts: [Int], length: Int, tile: Int, overlap: Int) -> [[Float]] {
    let ramp = (0..<tile).map { i -> Double in
        let s = sin(Double.pi / 2 * min(max((Double(i) + 0.5) / max(Double(overlap), 1e-6), 0), 1))
        return s * s
    }
    var total = [Double](repeating: 0, count: length)
    let windows = starts.map { start in
        (0..<tile).map { i -> Double in
            (start > 0 ? ramp[i] : 1) * (start + tile < length ? ramp[tile - 1 - i] : 1)
        }
    }
    for (start, window) in zip(starts, windows) {
        for i in 0..<tile { total[start + i] += window[i] }
    }
    return zip(starts, windows).map { start, window in (0..<tile).map { Float(window[$0] / total[start + $0]) } }
}

/// Translates a picture of any size by a model of one size, in tiles that blend as in `tfi2i.tiling`.
///
/// Sides that are shorter than a tile are continued by their mirror image, and cut off again.
///
/// - Parameters:
///   - outputChannels: of what the model gives.
///   - translate: levels of one tile, [height, width, channels], to float levels [height, width, outputChannels];
///     called in rows from the top.
func translateTiled(
    _ picture: Picture, tile: (width: Int, height: Int), overlap: Int, outputChannels: Int,
    translate: ([UInt8]) throws -> [Float]
) throws -> Picture {
    let (width, height) = (max(picture.width, tile.width), max(picture.height, tile.height))
    let columns = try tileStarts(width, tile: tile.width, overlap: overlap)
    let rows = try tileStarts(height, tile: tile.height, overlap: overlap)
    let weightsX = tileWeights(columns, length: width, tile: tile.width, overlap: overlap)
    let weightsY = tileWeights(rows, length: height, tile: tile.height, overlap: overlap)
    var sums = [Float](repeating: 0, count: width * height * outputChannels)
    for (top, weightY) in zip(rows, weightsY) {
        for (left, weightX) in zip(columns, weightsX) {
            let translated = try translate(cut(picture, left: left, top: top, size: tile))
            for y in 0..<tile.height {
                for x in 0..<tile.width {
                    for c in 0..<outputChannels {
                        sums[((top + y) * width + left + x) * outputChannels + c] +=
                            translated[(y * tile.width + x) * outputChannels + c] * weightY[y] * weightX[x]
                    }
                }
            }
        }
    }
    var levels = [UInt8](repeating: 0, count: picture.width * picture.height * outputChannels)
    for i in levels.indices {
        let (pixel, channel) = (i / outputChannels, i % outputChannels)
        let place = pixel / picture.width * width + pixel % picture.width
        let level = sums[place * outputChannels + channel].rounded(.toNearestOrEven)
        levels[i] = UInt8(min(max(level, 0), 255))
    }
    return Picture(width: picture.width, height: picture.height, channels: outputChannels, levels: levels)
}

/// The levels of a part of a picture, mirrored beyond the right and the lower edge.
private func cut(_ picture: Picture, left: Int, top: Int, size: (width: Int, height: Int)) -> [UInt8] {
    var part = [UInt8]()
    part.reserveCapacity(size.width * size.height * picture.channels)
    for y in 0..<size.height {
        for x in 0..<size.width {
            let row = mirrored(top + y, picture.height)
            let source = (row * picture.width + mirrored(left + x, picture.width)) * picture.channels
            part.append(contentsOf: picture.levels[source..<source + picture.channels])
        }
    }
    return part
}

/// Where a position comes from when a side is continued by its mirror image: 0 1 2 1 0 1 … for a side of 3.
private func mirrored(_ position: Int, _ length: Int) -> Int {
    let period = max(2 * (length - 1), 1)
    return min(position % period, period - position % period, length - 1)
}

/// Levels as an 8-bit file takes them: bytes of uint8 or int8.
func integersOf(_ levels: [UInt8], _ end: End) -> [UInt8] {
    let lowest = end.dtype == "int8" ? -128 : 0
    return levels.map { level in
        let integer = Int((Double(level) / end.scale).rounded(.toNearestOrEven)) + end.zeroPoint
        return UInt8(truncatingIfNeeded: min(max(integer, lowest), lowest + 255))
    }
}

/// The levels that an 8-bit file gives, in bytes of uint8 or int8.
func levelsOf(_ integers: [UInt8], _ end: End) -> [Float] {
    integers.map { byte in
        let integer = end.dtype == "int8" ? Int(Int8(bitPattern: byte)) : Int(byte)
        return Float(end.scale * Double(integer - end.zeroPoint))
    }
}

/// Levels as a float32 file takes them.
func floatsOf(_ levels: [UInt8]) -> [Float] { levels.map(Float.init) }
