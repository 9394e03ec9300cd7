package tfi2i.translator

import android.content.Context
import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.BuiltinNpuAcceleratorProvider
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import org.json.JSONObject

/** What to translate on, and the formats of `tfi2i export` for it: the first one that the app has is taken. */
enum class Hardware(val accelerator: Accelerator, val formats: List<String>) {
    CPU(Accelerator.CPU, listOf("dynamic", "int8", "int8_full", "float16", "float32")),
    GPU(Accelerator.GPU, listOf("gpu")),
    NPU(Accelerator.NPU, listOf("int8_full")),
}

/** The export in the app's assets, as its model.json describes it. */
class Export(assets: AssetManager) {
    private val litert = JSONObject(assets.open("model.json").use { it.readBytes().decodeToString() })
        .getJSONObject("litert")
    private val files = litert.getJSONObject("files")

    init {
        require(!litert.has("style")) { "the model takes a style, which this app cannot choose: export another model" }
    }

    // [1, height, width, channels]
    val height = dimension("input", 1)
    val width = dimension("input", 2)
    val channels = dimension("input", 3)
    val outputChannels = dimension("output", 3)

    private fun dimension(end: String, axis: Int) = litert.getJSONObject(end).getJSONArray("shape").getInt(axis)

    /** The file for a choice of hardware; null without one. */
    fun fileFor(hardware: Hardware): String? = hardware.formats.map { "$it.tflite" }.firstOrNull(files::has)

    /** What a file takes ("input") or gives ("output"). */
    fun endOf(file: String, end: String): End {
        val described = files.getJSONObject(file).getJSONObject(end)
        val quantization = described.optJSONObject("quantization") // null for floats
        return End(
            described.getString("dtype"),
            quantization?.getDouble("scale") ?: 1.0,
            quantization?.getInt("zero_point") ?: 0,
        )
    }
}

/**
 * Owns a model. Make it, call it and close it on one thread, which may wait.
 *
 * @throws com.google.ai.edge.litert.LiteRtException the hardware is not there, or does not take the file.
 */
class Translator(context: Context, private val export: Export, hardware: Hardware) : AutoCloseable {
    val file = requireNotNull(export.fileFor(hardware)) {
        "the app has no file for the $hardware: export with --formats=${hardware.formats.first()}"
    }
    private val input = export.endOf(file, "input")
    private val output = export.endOf(file, "output")
    private val environment =
        if (hardware == Hardware.NPU) Environment.create(BuiltinNpuAcceleratorProvider(context)) else null
    private val model =
        CompiledModel.create(context.assets, file, CompiledModel.Options(hardware.accelerator), environment)
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /**
     * Translates a picture of any size into one of the same size.
     *
     * @param tiled in tiles of the model's size, with all details; or else as a whole, made small for the model.
     * @param progress is called with the number of tiles that are done.
     */
    fun translate(picture: Picture, tiled: Boolean, progress: (Int) -> Unit): Picture {
        val (width, height) =
            if (tiled) Pair(picture.width, picture.height)
            else fitted(picture.width, picture.height, export.width, export.height)
        val overlap = minOf(export.width, export.height) / 8
        var done = 0
        val translated = translateTiled(
            resized(picture, width, height), export.width, export.height, overlap, export.outputChannels,
        ) { tile -> run(tile).also { progress(++done) } }
        return resized(translated, picture.width, picture.height)
    }

    private fun run(levels: ByteArray): FloatArray {
        when (input.dtype) {
            "float32" -> inputs[0].writeFloat(floatsOf(levels))
            else -> inputs[0].writeInt8(integersOf(levels, input)) // copies bytes, also those of uint8
        }
        model.run(inputs, outputs)
        return when (output.dtype) {
            "float32" -> outputs[0].readFloat()
            else -> levelsOf(outputs[0].readInt8(), output)
        }
    }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
        environment?.close()
    }
}
