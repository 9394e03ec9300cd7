import groovy.json.JsonSlurper

buildscript {
    repositories {
        google()
        mavenCentral()
    }
    dependencies {
        // The Android plugin compiles Kotlin itself, by a version that is too old for the classes of LiteRT.
        classpath(libs.kotlin.gradle.plugin)
    }
}

plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "tfi2i.translator"
    compileSdk = 36

    defaultConfig {
        applicationId = "tfi2i.translator"
        minSdk = 31 // Android 12, the first that LiteRT runs on NPUs
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") } // phones, and the emulator
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    androidResources { noCompress += "tflite" } // LiteRT maps them into memory
    packaging { jniLibs.useLegacyPackaging = true } // LiteRT looks for the libraries of NPUs in a folder
}

dependencies {
    implementation(libs.litert)
    implementation(libs.litert.gpu)
    implementation(libs.activity)
}

val checkExport = tasks.register("checkExport") {
    val assets = file("src/main/assets")
    doLast {
        val advice = "copy an export into the app: cp FOLDER/model.json FOLDER/*.tflite $assets/"
        val description = assets.resolve("model.json")
        if (!description.exists()) throw GradleException("$description is missing; $advice")
        val litert = (JsonSlurper().parse(description) as Map<*, *>)["litert"] as Map<*, *>?
            ?: throw GradleException("$description names no LiteRT file: export with --formats=dynamic,int8_full,gpu")
        val missing = (litert["files"] as Map<*, *>).keys.filter { !assets.resolve("$it").exists() }
        if (missing.isNotEmpty()) throw GradleException("$assets lacks ${missing.joinToString()}; $advice")
    }
}
tasks.named("preBuild") { dependsOn(checkExport) }
