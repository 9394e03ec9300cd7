package tfi2i.translator

import android.content.ActivityNotFoundException
import android.content.ContentValues
import android.graphics.Bitmap
import android.graphics.ColorSpace
import android.graphics.ImageDecoder
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.provider.MediaStore
import android.view.MotionEvent
import android.view.View
import android.widget.Button
import android.widget.CheckBox
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts.PickVisualMedia
import androidx.activity.result.contract.ActivityResultContracts.TakePicture
import java.util.concurrent.CancellationException
import java.util.concurrent.Executors

/** Pixels of the longer side of a picture; larger ones are made smaller, which bounds memory and time. */
private const val MAX_SIDE = 2048

/** Takes a picture from the picker or the camera, translates it, and shows it; a finger shows the original. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the model's thread
    private var translator: Translator? = null // of the worker
    private val export by lazy { Export(assets) }

    private var hardware = Hardware.CPU
    private var tiled = false
    @Volatile private var latest = 0 // counts what was asked for
    private var photo: Uri? = null // where the camera writes
    private var original: Bitmap? = null
    private var translated: Bitmap? = null

    private lateinit var image: ImageView
    private lateinit var status: TextView

    private val picker = registerForActivityResult(PickVisualMedia()) { it?.let(::read) }
    private val camera = registerForActivityResult(TakePicture()) { taken ->
        photo?.let { if (taken) read(it) else contentResolver.delete(it, null, null) }
    }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        photo = saved?.getString("photo")?.let(Uri::parse)
        image = ImageView(this)
        image.setOnTouchListener { _, event ->
            val held = event.action == MotionEvent.ACTION_DOWN || event.action == MotionEvent.ACTION_MOVE
            image.setImageBitmap(if (held) original else translated ?: original)
            true
        }
        status = TextView(this)
        status.text = "Choose a picture. Hold a finger on the translation to see the original."
        val tiles = CheckBox(this)
        tiles.text = "Tiles of ${export.width} × ${export.height} pixels: all details"
        tiles.setOnCheckedChangeListener { _, checked ->
            tiled = checked
            translate()
        }
        setContentView(
            column(
                image to 1f,
                status to 0f,
                choiceOfHardware() to 0f,
                tiles to 0f,
                row(
                    button("Photo") { picker.launch(PickVisualMediaRequest(PickVisualMedia.ImageOnly)) },
                    button("Camera", ::shoot),
                    button("Save", ::save),
                ) to 0f,
            )
        )
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putString("photo", photo?.toString())
    }

    override fun onDestroy() {
        latest++
        worker.execute { translator?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun shoot() {
        photo = newImage("image/jpeg")
        try {
            photo?.let(camera::launch)
        } catch (_: ActivityNotFoundException) {
            photo?.let { contentResolver.delete(it, null, null) }
            status.text = "There is no camera app."
        }
    }

    private fun newImage(type: String): Uri? {
        val about = ContentValues()
        about.put(MediaStore.Images.Media.MIME_TYPE, type)
        return contentResolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, about)
    }

    private fun read(uri: Uri) {
        latest++ // ends the translation of an earlier picture
        work { show(decoded(uri)) }
    }

    private fun decoded(uri: Uri): Bitmap {
        val source = ImageDecoder.createSource(contentResolver, uri)
        // Turns the picture as its EXIF orientation says.
        return ImageDecoder.decodeBitmap(source) { decoder, info, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // pixels of others cannot be read
            decoder.setTargetColorSpace(ColorSpace.get(ColorSpace.Named.SRGB))
            if (maxOf(info.size.width, info.size.height) > MAX_SIDE) {
                val (width, height) = fitted(info.size.width, info.size.height, MAX_SIDE, MAX_SIDE)
                decoder.setTargetSize(width, height)
            }
        }
    }

    private fun show(bitmap: Bitmap) = runOnUiThread {
        original = bitmap
        translated = null
        image.setImageBitmap(bitmap)
        translate()
    }

    private fun translate() {
        val bitmap = original ?: return
        val (hardware, tiled) = Pair(hardware, tiled)
        val request = ++latest
        work {
            val model = translator ?: Translator(this, export, hardware).also { translator = it }
            val argb = IntArray(bitmap.width * bitmap.height)
            bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
            val picture = pictureOf(argb, bitmap.width, bitmap.height, export.channels)
            val start = SystemClock.elapsedRealtime()
            val result = model.translate(picture, tiled) { tile ->
                if (request != latest) throw CancellationException()
                tell("$hardware, ${model.file}: tile $tile")
            }
            val time = SystemClock.elapsedRealtime() - start
            val shown = Bitmap.createBitmap(argbOf(result), result.width, result.height, Bitmap.Config.ARGB_8888)
            runOnUiThread {
                if (request == latest) {
                    translated = shown
                    image.setImageBitmap(shown)
                    status.text = "$hardware, ${model.file}: ${result.width} × ${result.height} pixels in $time ms"
                }
            }
        }
    }

    private fun save() {
        val bitmap = translated ?: return
        work {
            val uri = checkNotNull(newImage("image/png")) { "there is no place for pictures" }
            contentResolver.openOutputStream(uri)!!.use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
            tell("Saved among your pictures.")
        }
    }

    /** Runs it on the model's thread, after what was begun before; failures are shown. */
    private fun work(what: () -> Unit) = worker.execute {
        try {
            what()
        } catch (_: CancellationException) {
            // A later request follows.
        } catch (error: Exception) { // a picture that cannot be read, or hardware that is not there
            tell("${error.message ?: error}")
        } catch (error: OutOfMemoryError) {
            tell("The picture needs more memory than the app has.")
        }
    }

    private fun tell(what: String) = runOnUiThread { status.text = what }

    private fun choiceOfHardware(): View {
        val group = RadioGroup(this)
        group.orientation = LinearLayout.HORIZONTAL
        val available = Hardware.entries.filter { export.fileFor(it) != null }
        check(available.isNotEmpty()) { "the app has no file that it can use: export with --formats=dynamic" }
        for (one in available) {
            val radio = RadioButton(this)
            radio.id = View.generateViewId()
            radio.text = one.name
            group.addView(radio)
            radio.isChecked = one == available.first()
            radio.setOnClickListener { choose(one) }
        }
        hardware = available.first()
        return group
    }

    private fun choose(chosen: Hardware) {
        hardware = chosen
        work {
            translator?.close()
            translator = null
        }
        translate()
    }

    private fun button(label: String, action: () -> Unit) = Button(this).apply {
        text = label
        setOnClickListener { action() }
    }

    private fun row(vararg views: View) = LinearLayout(this).apply {
        views.forEach { addView(it, LinearLayout.LayoutParams(0, LinearLayout.LayoutParams.WRAP_CONTENT, 1f)) }
    }

    private fun column(vararg views: Pair<View, Float>) = LinearLayout(this).apply {
        orientation = LinearLayout.VERTICAL
        fitsSystemWindows = true // keeps clear of the status bar
        for ((view, weight) in views) {
            val height = if (weight > 0) 0 else LinearLayout.LayoutParams.WRAP_CONTENT
            addView(view, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, height, weight))
        }
    }
}
