/**
 * Pictures as the files of `tfi2i export` take and give them: sizes, tiles and numbers.
 *
 * Nothing here needs Android: `make test-apps` runs it on a desktop and compares it with tfi2i.
 */
package tfi2i.translator

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import kotlin.math.roundToInt
import kotlin.math.sin

/** Levels from 0 to 255, rows from the top, channels last: red, green and blue, or grey. */
class Picture(val width: Int, val height: Int, val channels: Int, val levels: ByteArray) {
    init {
        require(levels.size == width * height * channels) {
            "${levels.size} levels are no picture of $width x $height pixels with $channels channels"
        }
    }
}

/** What a file takes or gives, as model.json says: a level is scale * (integer - zeroPoint), floats are levels. */
class End(val dtype: String, val scale: Double, val zeroPoint: Int) {
    init {
        require(dtype in listOf("uint8", "int8", "float32")) {
            "the file has pixels of type $dtype: export with --io=uint8, int8 or float32, and not as int16x8"
        }
    }
}

/** A picture of Android's pixels, 0xAARRGGBB without premultiplication, on white. Grey is ITU-R 601, as Pillow's. */
fun pictureOf(argb: IntArray, width: Int, height: Int, channels: Int): Picture {
    val levels = ByteArray(argb.size * channels)
    for ((i, pixel) in argb.withIndex()) {
        val alpha = pixel ushr 24
        fun level(shift: Int) = ((pixel ushr shift and 0xFF) * alpha + 255 * (255 - alpha) + 127) / 255
        val (red, green, blue) = Triple(level(16), level(8), level(0))
        if (channels == 1) {
            levels[i] = (19595 * red + 38470 * green + 7471 * blue + 0x8000 shr 16).toByte()
        } else {
            levels[3 * i] = red.toByte()
            levels[3 * i + 1] = green.toByte()
            levels[3 * i + 2] = blue.toByte()
        }
    }
    return Picture(width, height, channels, levels)
}

/** Android's pixels of a picture, without transparency. */
fun argbOf(picture: Picture): IntArray = IntArray(picture.width * picture.height) { i ->
    fun level(channel: Int) = picture.levels[i * picture.channels + min(channel, picture.channels - 1)].toInt() and 0xFF
    0xFF shl 24 or (level(0) shl 16) or (level(1) shl 8) or level(2)
}

/** The largest (width, height) of a picture's shape that fits into another size. */
fun fitted(width: Int, height: Int, intoWidth: Int, intoHeight: Int): Pair<Int, Int> {
    val scale = min(intoWidth.toDouble() / width, intoHeight.toDouble() / height)
    return Pair(
        (width * scale).roundToInt().coerceIn(1, intoWidth),
        (height * scale).roundToInt().coerceIn(1, intoHeight),
    )
}

/** A picture of another size, by Pillow's antialiased bicubic filter, which prepared the pictures of the training. */
fun resized(picture: Picture, width: Int, height: Int): Picture {
    if (width == picture.width && height == picture.height) return picture
    // Rows of the first pass are all that the second pass reads of them.
    val wide = resizedAlong(picture.levels, picture.height, picture.width, picture.channels, width)
    val levels = resizedAlong(wide, 1, picture.height, width * picture.channels, height)
    return Picture(width, height, picture.channels, levels)
}

/** Resizes the middle axis of [outer, length, inner]. */
private fun resizedAlong(levels: ByteArray, outer: Int, length: Int, inner: Int, newLength: Int): ByteArray {
    if (newLength == length) return levels
    val scale = length.toDouble() / newLength
    val filterScale = max(scale, 1.0)
    val result = ByteArray(outer * newLength * inner)
    for (target in 0 until newLength) {
        val centre = (target + 0.5) * scale
        val first = max((centre - 2 * filterScale + 0.5).toInt(), 0)
        val last = min((centre + 2 * filterScale + 0.5).toInt(), length)
        val weights = DoubleArray(last - first) { bicubic((first + it - centre + 0.5) / filterScale) }
        val total = weights.sum()
        for (row in 0 until outer) for (column in 0 until inner) {
            var sum = 0.0
            for (k in weights.indices) {
                sum += weights[k] * (levels[(row * length + first + k) * inner + column].toInt() and 0xFF)
            }
            result[(row * newLength + target) * inner + column] = (sum / total).roundToInt().coerceIn(0, 255).toByte()
        }
    }
    return result
}

private fun bicubic(distance: Double): Double {
    val x = abs(distance)
    return when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> ((-0.5 * x + 2.5) * x - 4) * x + 2
        else -> 0.0
    }
}

/** Where tiles begin along a side, as `tfi2i.tiling.tile_starts` with multiple = 1. */
fun tileStarts(length: Int, tile: Int, overlap: Int): List<Int> {
    require(overlap in 0..tile / 2) { "overlap=$overlap: expected 0 to ${tile / 2}, half of tile=$tile" }
    val last = length - tile
    return if (last > 0) (0 until last step tile - overlap) + last else listOf(0)
}

/** Per tile, its weights along a side: sin² where tiles overlap. Over all tiles they add up to 1 at every pixel. */
fun tileWeights(starts: List<Int>, length: Int, tile: Int, overlap: Int): List<FloatArray> {
    val ramp = DoubleArray(tile) {
        val s = sin(PI / 2 * ((it + 0.5) / max(overlap.toDouble(), 1e-6)).coerceIn(0.0, 1.0))
        s * s
    }
    val total = DoubleArray(length)
    val windows = starts.map { start ->
        val window = DoubleArray(tile) {
            (if (start > 0) ramp[it] else 1.0) * (if (start + tile < length) ramp[tile - 1 - it] else 1.0)
        }
        for (i in 0 until tile) total[start + i] += window[i]
        window
    }
    return starts.zip(windows) { start, window -> FloatArray(tile) { (window[it] / total[start + it]).toFloat() } }
}

/**
 * Translates a picture of any size by a model of one size, in tiles that blend as in `tfi2i.tiling`.
 *
 * Sides that are shorter than a tile are continued by their mirror image, and cut off again.
 *
 * @param outputChannels of what the model gives.
 * @param translate levels of one tile, [tileHeight, tileWidth, channels], to float levels
 *     [tileHeight, tileWidth, outputChannels]; called in rows from the top.
 */
fun translateTiled(
    picture: Picture,
    tileWidth: Int,
    tileHeight: Int,
    overlap: Int,
    outputChannels: Int,
    translate: (ByteArray) -> FloatArray,
): Picture {
    val (width, height) = Pair(max(picture.width, tileWidth), max(picture.height, tileHeight))
    val (columns, rows) = Pair(tileStarts(width, tileWidth, overlap), tileStarts(height, tileHeight, overlap))
    val weightsX = tileWeights(columns, width, tileWidth, overlap)
    val weightsY = tileWeights(rows, height, tileHeight, overlap)
    val sums = FloatArray(width * height * outputChannels)
    for ((top, weightY) in rows.zip(weightsY)) for ((left, weightX) in columns.zip(weightsX)) {
        val translated = translate(cut(picture, left, top, tileWidth, tileHeight))
        for (y in 0 until tileHeight) for (x in 0 until tileWidth) for (c in 0 until outputChannels) {
            sums[((top + y) * width + left + x) * outputChannels + c] +=
                translated[(y * tileWidth + x) * outputChannels + c] * weightY[y] * weightX[x]
        }
    }
    val levels = ByteArray(picture.width * picture.height * outputChannels) { i ->
        val (pixel, channel) = Pair(i / outputChannels, i % outputChannels)
        val place = pixel / picture.width * width + pixel % picture.width
        round(sums[place * outputChannels + channel]).toInt().coerceIn(0, 255).toByte()
    }
    return Picture(picture.width, picture.height, outputChannels, levels)
}

/** The levels of a part of a picture, mirrored beyond the right and the lower edge. */
private fun cut(picture: Picture, left: Int, top: Int, width: Int, height: Int): ByteArray {
    val channels = picture.channels
    val part = ByteArray(width * height * channels)
    for (y in 0 until height) for (x in 0 until width) {
        val source = mirrored(top + y, picture.height) * picture.width + mirrored(left + x, picture.width)
        picture.levels.copyInto(part, (y * width + x) * channels, source * channels, (source + 1) * channels)
    }
    return part
}

/** Where a position comes from when a side is continued by its mirror image: 0 1 2 1 0 1 … for a side of 3. */
private fun mirrored(position: Int, length: Int): Int {
    val period = max(2 * (length - 1), 1)
    return min(position % period, period - position % period).coerceAtMost(length - 1)
}

/** Levels as an 8-bit file takes them. */
fun integersOf(levels: ByteArray, end: End): ByteArray {
    val lowest = if (end.dtype == "int8") -128 else 0
    return ByteArray(levels.size) {
        val integer = round((levels[it].toInt() and 0xFF) / end.scale).toInt() + end.zeroPoint
        integer.coerceIn(lowest, lowest + 255).toByte()
    }
}

/** The levels that an 8-bit file gives. */
fun levelsOf(integers: ByteArray, end: End): FloatArray = FloatArray(integers.size) {
    val integer = if (end.dtype == "int8") integers[it].toInt() else integers[it].toInt() and 0xFF
    (end.scale * (integer - end.zeroPoint)).toFloat()
}

/** Levels as a float32 file takes them. */
fun floatsOf(levels: ByteArray): FloatArray = FloatArray(levels.size) { (levels[it].toInt() and 0xFF).toFloat() }
