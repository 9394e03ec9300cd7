/// Runs one function of Pictures.swift on numbers from standard input, for `examples/test_pictures.py` to compare.

import Foundation

let arguments = Array(CommandLine.arguments.dropFirst())
let input = [UInt8](FileHandle.standardInput.readDataToEndOfFile())
let n = arguments.dropFirst().compactMap(Int.init)

func picture() -> Picture { Picture(width: n[0], height: n[1], channels: n[2], levels: input) }

func end() throws -> End { try End(dtype: arguments[1], scale: Double(arguments[2])!, zeroPoint: Int(arguments[3])!) }

func bytes<T>(_ numbers: [T]) -> [UInt8] { numbers.withUnsafeBytes { Array($0) } }

func answer() throws -> [UInt8] {
    switch arguments[0] {
    case "picture_of":
        return pictureOf(input, width: n[0], height: n[1], channels: n[2]).levels
    case "fitted":
        let size = fitted(n[0], n[1], into: (n[2], n[3]))
        return bytes([Int32(size.width), Int32(size.height)])
    case "resized":
        return resized(picture(), width: n[3], height: n[4]).levels
    case "integers_of":
        return integersOf(input, try end())
    case "levels_of":
        return bytes(levelsOf(input, try end()))
    case "floats_of":
        return bytes(floatsOf(input))
    case "tiled":
        let (channels, tile, overlap) = (n[2], (width: n[3], height: n[4]), n[5])
        // Depends on the place in the tile and on the opposite pixel, so that tiles in wrong places are noticed.
        return try translateTiled(picture(), tile: tile, overlap: overlap, outputChannels: channels) { levels in
            levels.enumerated().map { i, level in
                let pixel = i / channels
                let place = 3 * (pixel / tile.width) + 5 * (pixel % tile.width) + i % channels
                return Float(level) * 0.5 + Float(levels[levels.count - 1 - i]) * 0.25 + Float(place % 64)
            }
        }.levels
    default:
        throw Failure("there is no '\(arguments[0])'")
    }
}

do {
    FileHandle.standardOutput.write(Data(try answer()))
} catch {
    FileHandle.standardError.write(Data("\(error.localizedDescription)\n".utf8))
    exit(1)
}
