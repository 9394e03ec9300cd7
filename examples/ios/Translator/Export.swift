import Foundation

/// What to translate on, and the formats of `tfi2i export` for it: the first one that the app has is taken.
enum Hardware: String, CaseIterable {
    case cpu = "CPU"
    case gpu = "GPU"

    var formats: [String] { self == .gpu ? ["gpu"] : ["dynamic", "int8", "int8_full", "float16", "float32"] }
}

/// An export, as its model.json describes it.
struct Export {
    let width: Int
    let height: Int
    let channels: Int
    let outputChannels: Int
    private let files: [String: Ends]

    private struct Description: Decodable {
        struct LiteRT: Decodable {
            let input: Tensor
            let output: Tensor
            let files: [String: Ends]
            let style: Tensor?
        }
        struct Tensor: Decodable { let shape: [Int] }
        let litert: LiteRT?
    }
    private struct Ends: Decodable {
        let input: Pixels
        let output: Pixels
    }
    private struct Pixels: Decodable {
        struct Quantization: Decodable {
            let scale: Double
            let zero_point: Int
        }
        let dtype: String
        let quantization: Quantization?  // nil for floats
    }

    init(modelJSON: URL?) throws {
        guard let modelJSON else {
            throw Failure("the app has no model.json: cp FOLDER/model.json FOLDER/*.tflite Translator/Model/")
        }
        guard let litert = try JSONDecoder().decode(Description.self, from: Data(contentsOf: modelJSON)).litert else {
            throw Failure("model.json names no LiteRT file: export with --formats=dynamic,gpu")
        }
        guard litert.style == nil else {
            throw Failure("the model takes a style, which this app cannot choose: export another model")
        }
        (height, width, channels) = (litert.input.shape[1], litert.input.shape[2], litert.input.shape[3])
        (outputChannels, files) = (litert.output.shape[3], litert.files)
    }

    /// The file for a choice of hardware, without its extension; nil without one.
    func format(for hardware: Hardware) -> String? { hardware.formats.first { files["\($0).tflite"] != nil } }

    /// What a file takes, and what it gives.
    func ends(of format: String) throws -> (input: End, output: End) {
        guard let ends = files["\(format).tflite"] else { throw Failure("model.json does not name \(format).tflite") }
        func end(_ pixels: Pixels) throws -> End {
            let quantization = pixels.quantization
            return try End(
                dtype: pixels.dtype, scale: quantization?.scale ?? 1, zeroPoint: quantization?.zero_point ?? 0)
        }
        return (try end(ends.input), try end(ends.output))
    }
}
