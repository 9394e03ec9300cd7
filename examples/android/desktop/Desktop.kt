/** Runs one function of Pictures.kt on numbers from standard input, for `examples/test_pictures.py` to compare. */
package tfi2i.translator

import java.nio.ByteBuffer
import java.nio.ByteOrder

private fun buffer(size: Int) = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN)

private fun bytesOf(numbers: FloatArray) = buffer(4 * numbers.size).also { it.asFloatBuffer().put(numbers) }.array()

private fun bytesOf(numbers: IntArray) = buffer(4 * numbers.size).also { it.asIntBuffer().put(numbers) }.array()

fun main(arguments: Array<String>) {
    val input = System.`in`.readBytes()
    val n = arguments.drop(1).mapNotNull { it.toIntOrNull() }
    fun picture() = Picture(n[0], n[1], n[2], input)
    fun end() = End(arguments[1], arguments[2].toDouble(), arguments[3].toInt())
    val output = when (arguments[0]) {
        "picture_of" -> {
            val argb = IntArray(input.size / 4).also { buffer(input.size).put(input).flip().asIntBuffer().get(it) }
            pictureOf(argb, n[0], n[1], n[2]).levels
        }
        "argb_of" -> bytesOf(argbOf(picture()))
        "fitted" -> fitted(n[0], n[1], n[2], n[3]).let { bytesOf(intArrayOf(it.first, it.second)) }
        "resized" -> resized(picture(), n[3], n[4]).levels
        "integers_of" -> integersOf(input, end())
        "levels_of" -> bytesOf(levelsOf(input, end()))
        "floats_of" -> bytesOf(floatsOf(input))
        "tiled" -> {
            val (tileWidth, tileHeight, overlap) = n.drop(3)
            // Depends on the place in the tile and on the opposite pixel, so that tiles in wrong places are noticed.
            translateTiled(picture(), tileWidth, tileHeight, overlap, n[2]) { tile ->
                FloatArray(tile.size) { i ->
                    val pixel = i / n[2]
                    val place = 3 * (pixel / tileWidth) + 5 * (pixel % tileWidth) + i % n[2]
                    fun level(at: Int) = (tile[at].toInt() and 0xFF).toFloat()
                    level(i) * 0.5f + level(tile.size - 1 - i) * 0.25f + place % 64
                }
            }.levels
        }
        else -> throw IllegalArgumentException("there is no '${arguments[0]}'")
    }
    System.out.write(output)
    System.out.flush()
}
