import PhotosUI
import SwiftUI

@main
struct TranslatorApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}

/// Pixels of the longer side of a picture; larger ones are made smaller, which bounds memory and time.
private let maximumSide = 2048

/// Takes a picture from the picker or the camera, translates it, and shows it; a finger shows the original.
struct ContentView: View {
    @State private var worker = Worker()
    @State private var item: PhotosPickerItem?
    @State private var showsCamera = false
    @State private var original: UIImage?
    @State private var translated: UIImage?
    @State private var hardware = Hardware.cpu
    @State private var tiled = false
    @State private var status = "Choose a picture. Hold a finger on the translation to see the original."
    @GestureState private var held = false

    /// What is translated anew whenever it changes.
    private struct Request: Equatable {
        let original: UIImage?
        let hardware: Hardware
        let tiled: Bool
    }

    var body: some View {
        VStack(spacing: 12) {
            Image(uiImage: (held ? nil : translated) ?? original ?? UIImage())
                .resizable()
                .scaledToFit()
                .frame(maxWidth: .infinity, maxHeight: .infinity)
                .gesture(DragGesture(minimumDistance: 0).updating($held) { _, held, _ in held = true })
            Text(status)
                .frame(maxWidth: .infinity, alignment: .leading)
            Picker("Hardware", selection: $hardware) {
                ForEach(Hardware.allCases, id: \.self) { Text($0.rawValue) }
            }
            .pickerStyle(.segmented)
            Toggle("Tiles: all details", isOn: $tiled)
            HStack {
                PhotosPicker("Photo", selection: $item, matching: .images)
                Spacer()
                Button("Camera") { showsCamera = true }
                    .disabled(!UIImagePickerController.isSourceTypeAvailable(.camera))
                Spacer()
                if let translated {
                    let picture = Image(uiImage: translated)
                    ShareLink("Save", item: picture, preview: SharePreview("Translation", image: picture))
                }
            }
        }
        .padding()
        .fullScreenCover(isPresented: $showsCamera) { Camera(picture: $original).ignoresSafeArea() }
        .task(id: item) { await load() }
        .task(id: Request(original: original, hardware: hardware, tiled: tiled)) { await translate() }
    }

    private func load() async {
        guard let item else { return }
        do {
            guard let data = try await item.loadTransferable(type: Data.self), let picture = UIImage(data: data) else {
                throw Failure("The picture cannot be read.")
            }
            original = picture
        } catch {
            status = error.localizedDescription
        }
    }

    private func translate() async {
        translated = nil
        guard let original else { return }
        do {
            let (picture, what) = try await worker.translate(original, on: hardware, tiled: tiled) { tile in
                Task { @MainActor in status = "\(hardware.rawValue): tile \(tile)" }
            }
            translated = picture
            status = what
        } catch is CancellationError {
            // A later request follows.
        } catch {
            status = error.localizedDescription
        }
    }
}

/// Keeps the model, and translates one picture after the other.
actor Worker {
    private var made: (hardware: Hardware, export: Export, translator: Translator)?

    /// - Returns: the translation, and a sentence about it.
    func translate(
        _ image: UIImage, on hardware: Hardware, tiled: Bool, progress: @Sendable (Int) -> Void
    ) throws -> (UIImage, String) {
        try Task.checkCancellation()
        if made?.hardware != hardware {
            made = nil
            let export = try Export(modelJSON: Bundle.main.url(forResource: "model", withExtension: "json"))
            made = (hardware, export, try Translator(export: export, hardware: hardware))
        }
        let (_, export, translator) = made!
        let picture = pictureOf(image, channels: export.channels)
        let start = ContinuousClock.now
        let result = try translator.translate(picture, tiled: tiled, progress: progress)
        let time = ContinuousClock.now - start
        guard let shown = imageOf(result) else { throw Failure("The translation cannot be shown.") }
        return (
            shown,
            "\(hardware.rawValue), \(translator.file): \(result.width) × \(result.height) pixels in "
                + time.formatted(.units(allowed: [.seconds, .milliseconds], width: .narrow))
        )
    }
}

/// Upright, on white, at most `maximumSide` large.
private func pictureOf(_ image: UIImage, channels: Int) -> Picture {
    let given = (Int(image.size.width * image.scale), Int(image.size.height * image.scale))
    let side = min(max(given.0, given.1), maximumSide)
    let (width, height) = fitted(given.0, given.1, into: (side, side))
    var rgbx = [UInt8](repeating: 255, count: 4 * width * height)
    rgbx.withUnsafeMutableBytes { bytes in
        let context = CGContext(
            data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
            space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
        context.interpolationQuality = .high
        // Core Graphics counts rows from below. UIImage turns itself as its EXIF orientation says.
        context.translateBy(x: 0, y: CGFloat(height))
        context.scaleBy(x: 1, y: -1)
        UIGraphicsPushContext(context)
        image.draw(in: CGRect(x: 0, y: 0, width: width, height: height))
        UIGraphicsPopContext()
    }
    return pictureOf(rgbx, width: width, height: height, channels: channels)
}

private func imageOf(_ picture: Picture) -> UIImage? {
    let (colours, channels) = (picture.channels == 1 ? CGColorSpaceCreateDeviceGray() : nil, picture.channels)
    guard let provider = CGDataProvider(data: Data(picture.levels) as CFData),
        let image = CGImage(
            width: picture.width, height: picture.height, bitsPerComponent: 8, bitsPerPixel: 8 * channels,
            bytesPerRow: channels * picture.width, space: colours ?? CGColorSpace(name: CGColorSpace.sRGB)!,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
            shouldInterpolate: true, intent: .defaultIntent)
    else { return nil }
    return UIImage(cgImage: image)
}

/// The system's camera.
private struct Camera: UIViewControllerRepresentable {
    @Binding var picture: UIImage?
    @Environment(\.dismiss) private var dismiss

    func makeUIViewController(context: Context) -> UIImagePickerController {
        let controller = UIImagePickerController()
        controller.sourceType = .camera
        controller.delegate = context.coordinator
        return controller
    }

    func updateUIViewController(_ controller: UIImagePickerController, context: Context) {}

    func makeCoordinator() -> Coordinator { Coordinator(camera: self) }

    final class Coordinator: NSObject, UIImagePickerControllerDelegate, UINavigationControllerDelegate {
        let camera: Camera

        init(camera: Camera) { self.camera = camera }

        func imagePickerController(
            _ picker: UIImagePickerController,
            didFinishPickingMediaWithInfo info: [UIImagePickerController.InfoKey: Any]
        ) {
            if let taken = info[.originalImage] as? UIImage { camera.picture = taken }
            camera.dismiss()
        }

        func imagePickerControllerDidCancel(_ picker: UIImagePickerController) { camera.dismiss() }
    }
}
