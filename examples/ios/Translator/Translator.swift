import Foundation
import LiteRT

/// Owns a model. Call it by one task at a time, which may wait.
final class Translator {
    let file: String
    private let export: Export
    private let ends: (input: End, output: End)
    private let model: CompiledModel
    private let inputs: [TensorBuffer]
    private let outputs: [TensorBuffer]

    /// - Throws: the app has no file for the hardware, or the hardware does not take the file.
    init(export: Export, hardware: Hardware) throws {
        guard let format = export.format(for: hardware) else {
            throw Failure(
                "the app has no file for the \(hardware.rawValue): export with --formats=\(hardware.formats[0])")
        }
        file = "\(format).tflite"
        guard let path = Bundle.main.path(forResource: format, ofType: "tflite") else {
            throw Failure("the app lacks \(file): cp FOLDER/model.json FOLDER/*.tflite Translator/Model/")
        }
        self.export = export
        ends = try export.ends(of: format)
        let options = try Options()
        try options.setHardwareAccelerators([hardware == .gpu ? .gpu : .cpu])
        model = try CompiledModel(filePath: path, environment: Environment(), options: options)
        inputs = try model.createInputBuffers()
        outputs = try model.createOutputBuffers()
    }

    /// Translates a picture of any size into one of the same size.
    ///
    /// - Parameters:
    ///   - tiled: in tiles of the model's size, with all details; or else as a whole, made small for the model.
    ///   - progress: called with the number of tiles that are done.
    func translate(_ picture: Picture, tiled: Bool, progress: (Int) -> Void) throws -> Picture {
        let tile = (width: export.width, height: export.height)
        let size =
            tiled ? (width: picture.width, height: picture.height) : fitted(picture.width, picture.height, into: tile)
        var done = 0
        let translated = try translateTiled(
            resized(picture, width: size.width, height: size.height), tile: tile,
            overlap: min(tile.width, tile.height) / 8, outputChannels: export.outputChannels
        ) { levels in
            try Task.checkCancellation()
            let translated = try run(levels)
            done += 1
            progress(done)
            return translated
        }
        return resized(translated, width: picture.width, height: picture.height)
    }

    private func run(_ levels: [UInt8]) throws -> [Float] {
        if ends.input.dtype == "float32" {
            try inputs[0].write(floatsOf(levels))
        } else {
            try inputs[0].write(integersOf(levels, ends.input))
        }
        try model.run(inputs: inputs, outputs: outputs)
        if ends.output.dtype == "float32" { return try outputs[0].read() }
        return levelsOf(try outputs[0].read(), ends.output)
    }
}
