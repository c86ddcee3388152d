"""Odd, damaged and broken audio files, each with the expected result."""

import io
import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

RATE = 22050
FFMPEG = shutil.which("ffmpeg")
CORRUPT = "unsupported_or_corrupt"
# Samples by which a length may differ: rounding, or padding of encoders up to 0.1 s.
LOSSLESS = 2
LOSSY = 2205


class Case(NamedTuple):
    """One file, and the expected result."""

    path: bytes
    expected: str | int  # a key of REASONS, or samples at 22050 Hz
    slack: int = LOSSLESS
    needs_ffmpeg: bool = False  # to be read
    act: str = ""  # what happens to the file while it is read


def tone(seconds: float = 1.0, rate: int = 44100, n_channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return (wave[:, None] + 0.02 * rng.normal(size=(len(wave), n_channels))).astype(
        np.float32
    )


def encode(
    form: str,
    subtype: str,
    sound: np.ndarray | None = None,
    rate: int = 44100,
    **options: Any,
) -> bytes:
    target = io.BytesIO()
    soundfile.write(
        target,
        tone(rate=rate) if sound is None else sound,
        rate,
        subtype,
        format=form,
        **options,
    )
    return target.getvalue()


def ffmpeg(*options: str, sound: np.ndarray | None = None, rate: int = 44100) -> bytes:
    """Encode by ffmpeg; the last option is a name with a suffix, or "-" for a pipe."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / options[-1]) if options[-1] != "-" else "-"
        command = [
            FFMPEG,
            "-nostdin",
            "-v",
            "error",
            "-i",
            "pipe:0",
            *options[:-1],
            target,
        ]
        data = encode("WAV", "PCM_16", sound, rate)
        out = subprocess.run(
            command, input=data, capture_output=True, check=True
        ).stdout
        return out if target == "-" else Path(target).read_bytes()


def pcm(sound: np.ndarray | None = None, form: str = "<i2") -> bytes:
    sound = tone() if sound is None else sound
    if form in ("<f4", ">f4", "<f8"):
        return sound.astype(form).tobytes()
    return (sound * 32767).astype(form).tobytes()


def chunk(name: bytes, data: bytes, size: int | None = None, order: str = "<") -> bytes:
    return (
        name
        + struct.pack(order + "I", len(data) if size is None else size)
        + data
        + bytes(len(data) % 2)
    )


def wav(
    data: bytes | None = None,
    rate=44100,
    n_channels=2,
    bits=16,
    tag=1,
    size=None,
    **other: Any,
) -> bytes:
    """Make a WAV; `other`: per_second, align, magic, before, after, riff_size."""
    data = pcm() if data is None else data
    align = other.get("align", n_channels * bits // 8)
    head = struct.pack(
        "<HHIIHH",
        tag,
        n_channels,
        rate,
        other.get("per_second", rate * align) % 2**32,
        align,
        bits,
    )
    content = (
        b"WAVE"
        + other.get("before", b"")
        + chunk(b"fmt ", head)
        + chunk(b"data", data, size)
    )
    content += other.get("after", b"")
    return (
        other.get("magic", b"RIFF")
        + struct.pack("<I", other.get("riff_size", len(content)))
        + content
    )


def aiff(
    data: bytes,
    n_frames: int,
    rate: bytes,
    size: int | None = None,
    before: bytes = b"",
) -> bytes:
    comm = chunk(b"COMM", struct.pack(">hIh", 2, n_frames, 16) + rate, order=">")
    content = b"AIFF" + before + comm + chunk(b"SSND", bytes(8) + data, size, ">")
    return b"FORM" + struct.pack(">I", len(content)) + content


def au(
    data: bytes, size: int, rate: int = 44100, n_channels: int = 2, offset: int = 24
) -> bytes:
    return (
        struct.pack(">4s5I", b".snd", offset, size, 3, rate, n_channels)
        + bytes(offset - 24)
        + data
    )


def patch(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def id3(n_bytes: int, promised: int | None = None) -> bytes:
    size = n_bytes if promised is None else promised
    return (
        b"ID3\4\0\0"
        + bytes(size >> s & 127 for s in (21, 14, 7, 0))
        + b"\xff\xfb\x90\x64" * (n_bytes // 4)
    )


def mp3_frames(data: bytes) -> list[bytes]:
    """Split an MP3 into frames; the first one may count the others."""
    from cqt2img.audio.mp3 import parse_frame_header

    at = data.index(b"\xff")
    found = []
    while frame := parse_frame_header(data[at : at + 4]):
        found.append(data[at : at + frame.n_bytes])
        at += frame.n_bytes
    return found


def ogg_pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def make_wav_files() -> Iterator[tuple]:
    """Yield WAV and its relatives: name, bytes, expected result."""
    whole, head = wav(), wav(b"")[:44]
    for bits, form in ((16, "<i2"), (32, "<i4")):
        yield (
            f"{bits}.wav",
            wav(pcm(tone() * (1 if bits == 16 else 65536), form), bits=bits),
            RATE,
        )
    for subtype in (
        "PCM_U8",
        "PCM_24",
        "FLOAT",
        "DOUBLE",
        "ULAW",
        "ALAW",
        "IMA_ADPCM",
        "MS_ADPCM",
    ):
        slack = 600 if "ADPCM" in subtype else LOSSLESS  # in blocks
        yield f"{subtype}.wav", encode("WAV", subtype), RATE, slack
    for form, subtype in (
        ("WAVEX", "PCM_24"),
        ("WAVEX", "FLOAT"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_24"),
    ):
        yield f"{form}_{subtype}.wav", encode(form, subtype), RATE
    yield "big_endian.wav", encode("WAV", "PCM_16", tone(), endian="BIG"), RATE
    yield (
        "chunks_before.wav",
        wav(before=chunk(b"JUNK", bytes(29)) + chunk(b"bext", bytes(602))),
        RATE,
    )
    yield (
        "chunks_after.wav",
        wav(after=chunk(b"LIST", b"INFOIART\4\0\0\0abc\0") + chunk(b"id3 ", id3(400))),
        RATE,
    )
    yield "last_chunk_is_cut.wav", wav(after=chunk(b"LIST", b"INFO")[:-2]), RATE
    yield "zeros_after.wav", wav(after=bytes(100_000)), RATE
    yield "id3_after.wav", wav(after=id3(40_000)), RATE
    yield "data_is_empty.wav", wav(b""), "too_short"
    yield (
        "data_is_empty_then_chunks.wav",
        wav(b"", after=chunk(b"JUNK", pcm())),
        "too_short",
    )
    for size in (0, 0xFFFFFFFF, 0x80000000, 0x7FFFF000, 0x7FFFFFFF):
        yield f"streamed_{size:x}.wav", wav(size=size), RATE
    yield "streamed_riff.wav", wav(size=0xFFFFFFFF, riff_size=0xFFFFFFFF), RATE
    for size in (0, 99, 0xFFFFFFFF):
        yield f"riff_size_{size:x}.wav", wav(riff_size=size), RATE
    for n in (1, 4, 11, 12, 20, 30, 36):
        yield f"cut_at_{n}.wav", whole[:n], CORRUPT
    for n in (44, 45, 1000, len(whole) // 2, len(whole) - 100):
        yield f"cut_at_{n}.wav", whole[:n], "truncated"
    yield "cut.rf64", encode("RF64", "PCM_16")[:90000], "truncated"
    yield "cut.w64", encode("W64", "PCM_16")[:90000], "truncated"
    yield "promises_more.wav", wav(size=176400 + 20000), "truncated"
    yield "promises_less.wav", wav(size=88200), CORRUPT
    yield "size_overflowed.wav", wav(size=1000), CORRUPT  # as of a file above 4 GB
    yield "only_header.wav", head, "too_short"
    yield "no_data_chunk.wav", head[:36], CORRUPT
    for n in (0, 65, 1024):
        reason = "bad_channels" if n else CORRUPT
        yield f"channels_{n}.wav", wav(n_channels=n, align=2 * n or 4), reason
    yield "channels_64.wav", wav(pcm(tone(n_channels=64)), n_channels=64), RATE
    for rate in (1, 0, 3999, 768001, 3_000_000):
        yield (
            f"rate_{rate}.wav",
            wav(rate=rate),
            CORRUPT if rate == 0 else "bad_sample_rate",
        )
    yield "rate_contradicts.wav", wav(rate=22050, per_second=176400), CORRUPT
    yield "per_second_is_0.wav", wav(per_second=0), RATE
    yield "per_second_in_bits.wav", wav(per_second=176400 * 8), RATE
    yield "bits_0.wav", wav(bits=0, align=4), CORRUPT
    yield "tag_unknown.wav", wav(tag=0x1234), CORRUPT
    for value in ("nan", "inf"):
        sound = tone()
        sound[-1] = float(value)
        yield f"{value}.wav", encode("WAV", "FLOAT", sound), "non_finite"
    yield "huge.wav", encode("WAV", "FLOAT", tone() * np.float32(1e38)), "non_finite"
    yield "hot.wav", encode("WAV", "FLOAT", tone() * 30), RATE
    yield "short.wav", wav(pcm(tone(0.099))), "too_short"
    yield "just_long_enough.wav", wav(pcm(tone(0.1))), 2205
    yield "one_sample.wav", wav(pcm(tone(1 / 44100))), "too_short"
    yield "silent.wav", wav(bytes(176400)), "silent"
    yield "dc.wav", wav(pcm(np.full((44100, 2), 0.5))), RATE
    yield "antiphase.wav", wav(pcm(tone(n_channels=1) * [1, -1])), "silent"
    yield (
        "quieter_than_a_step.flac",
        encode("FLAC", "PCM_24", tone() * np.float32(1e-5)),
        "silent",
    )


def make_other_files() -> Iterator[tuple]:
    """Yield AIFF, AU, CAF, and files that are not audio."""
    hz, sound = struct.pack(">HQ", 16398, 44100 << 48), pcm(form=">i2")
    for subtype in ("PCM_S8", "PCM_24", "FLOAT", "ULAW"):
        yield f"{subtype}.aiff", encode("AIFF", subtype), RATE
    yield "own.aiff", aiff(sound, 44100, hz), RATE
    yield "little_endian.aifc", encode("AIFF", "PCM_16", endian="LITTLE"), RATE
    yield (
        "chunks_before.aiff",
        aiff(sound, 44100, hz, before=chunk(b"NAME", b"odd", order=">")),
        RATE,
    )
    yield "cut.aiff", aiff(sound, 44100, hz)[:90000], "truncated"
    yield "cut_header.aiff", aiff(sound, 44100, hz)[:30], CORRUPT
    yield "promises_more.aiff", aiff(sound, 66150, hz), "truncated"
    yield "promises_less.aiff", aiff(sound, 22050, hz), CORRUPT
    yield "ssnd_promises_less.aiff", aiff(sound, 44100, hz, size=90008), CORRUPT
    yield "streamed_0.aiff", aiff(sound, 0, hz, size=0), RATE
    yield "streamed_ffffffff.aiff", aiff(sound, 0xFFFFFFFF, hz, size=0xFFFFFFFF), RATE
    yield "no_sound.aiff", aiff(b"", 0, hz), "too_short"
    yield "rate_0.aiff", aiff(sound, 44100, bytes(10)), "bad_sample_rate"
    yield (
        "rate_nan.aiff",
        aiff(sound, 44100, b"\x7f\xff" + b"\xff" * 8),
        "bad_sample_rate",
    )
    yield (
        "rate_huge.aiff",
        aiff(sound, 44100, struct.pack(">HQ", 16404, 44100 << 48)),
        "bad_sample_rate",
    )
    for subtype in ("PCM_16", "ULAW", "FLOAT"):
        yield f"{subtype}.au", encode("AU", subtype), RATE
    yield "little_endian.au", encode("AU", "PCM_16", endian="LITTLE"), RATE
    yield "long_header.au", au(sound, len(sound), offset=1000), RATE
    yield "streamed.au", au(sound, 0xFFFFFFFF), RATE
    yield "cut.au", au(sound, len(sound))[:90000], "truncated"
    yield (
        "cut_little_endian.au",
        encode("AU", "PCM_16", endian="LITTLE")[:90000],
        "truncated",
    )
    yield "promises_less.au", au(sound, 88200), CORRUPT
    yield "channels_0.au", au(sound, len(sound), n_channels=0), CORRUPT
    for subtype in ("PCM_24", "FLOAT", "ALAC_16"):
        yield f"{subtype}.caf", encode("CAF", subtype), RATE
    caf = encode("CAF", "PCM_16")
    at = caf.index(b"data") + 4
    yield "streamed.caf", patch(caf, at, b"\xff" * 8), RATE
    yield "cut.caf", caf[:90000], "truncated"
    yield "cut_alac.caf", encode("CAF", "ALAC_16")[:60000], "truncated"
    yield "promises_less.caf", patch(caf, at, struct.pack(">Q", 90004)), CORRUPT
    yield "rate_0.caf", patch(caf, 20, bytes(8)), CORRUPT
    yield "rate_nan.caf", patch(caf, 20, struct.pack(">d", float("nan"))), CORRUPT
    yield "text.wav", b"hello " * 999, CORRUPT
    yield (
        "page.mp3",
        b"<!DOCTYPE html><title>404</title>" + b"<p>Not found" * 999,
        CORRUPT,
    )
    yield (
        "photo.flac",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0" + np.random.default_rng(0).bytes(20000),
        CORRUPT,
    )
    bag = io.BytesIO()
    with zipfile.ZipFile(bag, "w") as archive:
        archive.writestr("a.wav", wav())
    yield "archive.ogg", bag.getvalue(), CORRUPT
    yield "playlist.mp3", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n" * 99, CORRUPT
    yield "zeros.wav", bytes(50000), CORRUPT
    yield "ones.mp3", b"\xff" * 50000, CORRUPT
    yield "noise.mp3", np.random.default_rng(1).bytes(50000), CORRUPT
    yield "empty.wav", b"", "empty_file"
    yield "empty.m4a", b"", "empty_file"
    for suffix, form, subtype in (
        ("mp3", "FLAC", "PCM_16"),
        ("wav", "OGG", "VORBIS"),
        ("txt", "WAV", "PCM_16"),
    ):
        yield f"really_{form}.{suffix}", encode(form, subtype), RATE


def make_coded_files() -> Iterator[tuple]:
    """Yield FLAC, Ogg and MP3."""
    flac = encode("FLAC", "PCM_16", tone(2.0))
    for at in (50, 86, 5000, len(flac) // 2, len(flac) - 1):
        yield f"cut_at_{at}.flac", flac[:at], CORRUPT if at < 86 else "truncated"
    yield "damaged.flac", patch(flac, len(flac) // 2, bytes(9000)), CORRUPT
    yield (
        "damaged_by_a_bit.flac",
        patch(flac, len(flac) // 2, bytes([flac[len(flac) // 2] ^ 1])),
        CORRUPT,
    )
    for n, name in (
        (1 << 36, "asks_for_256_gb"),
        (88200 * 2, "promises_more"),
        (44100, "promises_less"),
    ):
        lie = patch(
            flac,
            21,
            bytes([flac[21] & 0xF0 | (n - 1) >> 32])
            + struct.pack(">I", n & 0xFFFFFFFF or 2**32 - 1),
        )
        yield (
            f"{name}.flac",
            lie,
            {"promises_less": CORRUPT, "promises_more": "truncated"}.get(
                name, "too_long"
            ),
        )
    yield (
        "streamed.flac",
        patch(flac, 21, bytes([flac[21] & 0xF0]) + bytes(4)),
        2 * RATE,
    )
    yield (
        "rate_contradicts.flac",
        patch(flac, 18, struct.pack(">H", 22050 >> 4)),
        CORRUPT,
    )
    yield "id3_before.flac", id3(4000) + flac, 2 * RATE
    yield "id3v1_after.flac", flac + b"TAG" + bytes(125), 2 * RATE
    yield "only_header.flac", flac[: flac.index(b"\xff\xf8")], "truncated"
    for subtype, rate in (("VORBIS", 44100), ("OPUS", 48000)):
        data = encode("OGG", subtype, tone(2.0, rate), rate)
        pages = ogg_pages(data)
        assert len(pages) > 3
        yield f"{subtype}.ogg", data, 2 * RATE
        yield f"cut_{subtype}.ogg", data[: len(data) // 2], "truncated"
        yield f"cut_between_pages_{subtype}.ogg", b"".join(pages[:-1]), "truncated"
        yield f"cut_header_{subtype}.ogg", data[:40], "truncated"
        yield f"page_lost_{subtype}.ogg", b"".join(pages[:2] + pages[3:]), CORRUPT
        yield f"damaged_{subtype}.ogg", patch(data, len(data) // 2, bytes(50)), CORRUPT
        yield f"chained_{subtype}.ogg", data * 3, 6 * RATE
        yield (
            f"chained_rates_{subtype}.ogg",
            data + encode("OGG", "VORBIS", tone(1.0, 32000), 32000),
            CORRUPT,
        )
        yield f"chained_and_cut_{subtype}.ogg", data + data[:-100], "truncated"
        yield f"garbage_after_{subtype}.ogg", data + bytes(3000), 2 * RATE
    yield from make_mp3_files()


def make_mp3_files() -> Iterator[tuple]:
    """Yield MP3 with and without counts, tags and garbage."""
    first, *frames = mp3_frames(
        encode("MP3", "MPEG_LAYER_III", tone(2.0), bitrate_mode="CONSTANT")
    )
    assert b"Info" in first or b"Xing" in first
    whole, bare, mono = (
        first + b"".join(frames),
        b"".join(frames),
        tone(1.0, n_channels=1),
    )
    vbr = encode("MP3", "MPEG_LAYER_III", tone(2.0), bitrate_mode="VARIABLE")
    two = 2 * RATE
    yield "cbr.mp3", whole, two, LOSSY
    yield "cbr_bare.mp3", bare, two, LOSSY
    yield "vbr.mp3", vbr, two, LOSSY
    loud = np.concatenate(
        [np.random.default_rng(0).uniform(-0.9, 0.9, (44100, 2)), 0.1 * tone(4.0)]
    )
    uneven = encode(
        "MP3", "MPEG_LAYER_III", loud, bitrate_mode="VARIABLE", compression_level=0.0
    )
    yield "vbr_bare.mp3", b"".join(mp3_frames(uneven)[1:]), 5 * RATE, LOSSY
    for n, name in ((999, "more"), (len(frames) // 2, "less")):
        at = max(first.find(b"Info"), first.find(b"Xing")) + 8
        lie = patch(whole, at, struct.pack(">I", n))
        yield (
            f"count_promises_{name}.mp3",
            lie,
            "truncated" if name == "more" else two,
            LOSSY,
        )
    yield "id3_with_picture.mp3", id3(4_000_000) + whole, two, LOSSY
    yield (
        "id3_twice_and_padded.mp3",
        id3(400) + id3(800) + bytes(3000) + whole,
        two,
        LOSSY,
    )
    yield "id3_promises_more.mp3", id3(400, 200_000_000) + whole, CORRUPT
    yield "id3_promises_a_bit_more.mp3", id3(400, 700) + whole, two, LOSSY
    yield (
        "id3_promises_less.mp3",
        b"ID3\4\0\0\0\0\3\x10" + b"picture " * 500 + whole,
        two,
        LOSSY,
    )
    yield "only_id3.mp3", id3(4000), CORRUPT
    yield "id3v1_after.mp3", bare + b"TAG" + b"\xff" * 125, two, LOSSY
    yield (
        "ape_after.mp3",
        bare + b"APETAGEX" + struct.pack("<4I", 2000, 40000, 1, 1 << 31) + bytes(40008),
        two,
        LOSSY,
    )
    yield (
        "ape_before.mp3",
        b"APETAGEX" + struct.pack("<4I", 2000, 40000, 1, 1 << 31) + bytes(40008) + bare,
        two,
        LOSSY,
    )
    yield "garbage_before.mp3", b"garbage " * 30 + whole, two, LOSSY
    yield (
        "garbage_after.mp3",
        bare + b"garbage " * 9000,
        CORRUPT,
    )  # it might be damaged audio
    half = len(frames) // 2
    parts = b"".join(frames[:half]), b"".join(frames[half:])
    yield "little_garbage_between.mp3", parts[0] + b"garbage " * 20 + parts[1], CORRUPT
    yield "much_garbage_between.mp3", parts[0] + b"garbage " * 9000 + parts[1], CORRUPT
    yield (
        "tags_between.mp3",
        whole + b"TAG" + bytes(125) + id3(4000) + whole,
        2 * two,
        2 * LOSSY,
    )
    yield "damaged_bare.mp3", patch(bare, len(bare) // 2, bytes(9000)), CORRUPT
    yield "cut.mp3", whole[: len(whole) // 2], "truncated"
    yield "cut_on_a_frame.mp3", first + parts[0], "truncated"
    yield "cut_bare.mp3", bare[: len(bare) // 2 + 50], "truncated"
    # Without a count, a cut between two frames cannot be found.
    yield "cut_bare_on_a_frame.mp3", parts[0], round(half * 1152 / 2), LOSSY
    slow = encode("MP3", "MPEG_LAYER_III", tone(1.0, 32000), 32000)
    yield "two_rates.mp3", whole + slow, CORRUPT
    yield "two_rates_bare.mp3", bare + b"".join(mp3_frames(slow)[1:]), CORRUPT
    yield "mono_then_stereo.mp3", encode("MP3", "MPEG_LAYER_III", mono) + whole, CORRUPT
    yield "stereo_then_mono.mp3", bare + encode("MP3", "MPEG_LAYER_III", mono), CORRUPT
    for rate in (16000, 8000):
        yield (
            f"mpeg_of_{rate}.mp3",
            encode("MP3", "MPEG_LAYER_III", tone(2.0, rate), rate),
            two,
            2 * LOSSY,
        )
    free = b"".join(
        bytes([*f[:2], f[2] & 0x0D, *f[3:]])
        for f in frames
        if len(f) == len(frames[0]) - 1 + 1
    )
    yield "free_format.mp3", free, CORRUPT
    yield "one_frame.mp3", frames[0], CORRUPT


def make_ffmpeg_files() -> Iterator[tuple]:
    """Yield files of ffmpeg; the last item is whether only ffmpeg reads them."""
    two = tone(2.0)
    yield "layer2.mp2", ffmpeg("-c:a", "mp2", "x.mp2", sound=two), 2 * RATE, LOSSY
    yield (
        "mp3_in_wav.wav",
        ffmpeg("-c:a", "libmp3lame", "x.wav", sound=two),
        2 * RATE,
        LOSSY,
    )
    yield "piped.wav", ffmpeg("-f", "wav", "-", sound=two), 2 * RATE
    yield "piped.flac", ffmpeg("-f", "flac", "-", sound=two), 2 * RATE
    yield "piped.aiff", ffmpeg("-f", "aiff", "-", sound=two), 2 * RATE
    yield "piped.caf", ffmpeg("-f", "caf", "-", sound=two), 2 * RATE
    yield "piped.au", ffmpeg("-f", "au", "-", sound=two), 2 * RATE
    yield (
        "free_format_sizes.mp3",
        ffmpeg("-b:a", "8k", "-ar", "8000", "-ac", "1", "x.mp3", sound=two),
        2 * RATE,
        4410,
    )
    for name, options in {
        "aac.m4a": ("x.m4a",),
        "alac.m4a": ("-c:a", "alac", "x.m4a"),
        "faststart.m4a": ("-movflags", "faststart", "x.m4a"),
        "fragments.m4a": ("-movflags", "frag_keyframe+empty_moov", "x.m4a"),
        "adts.aac": ("x.aac",),
        "wma.wma": ("x.wma",),
        "vorbis.mka": ("x.mka",),
        "opus.webm": ("x.webm",),
        "streamed.mka": ("-f", "matroska", "-"),
    }.items():
        data = ffmpeg(*options, sound=two)
        yield name, data, 2 * RATE, LOSSY, True
        cut = data[: len(data) // 2]
        if name == "streamed.mka":  # promises no size, so that a part of it is valid
            continue
        yield (
            f"cut_{name}",
            cut,
            CORRUPT if name == "adts.aac" else "truncated",
            0,
            True,
        )
        yield f"cut_header_{name}", data[:30], CORRUPT, 0, True
    data = ffmpeg("x.m4a", sound=two)
    yield (
        "damaged.m4a",
        patch(data, data.index(b"mdat") + 8000, bytes(6000)),
        CORRUPT,
        0,
        True,
    )
    yield "mdat_without_moov.m4a", data[: data.index(b"moov") - 4], CORRUPT, 0, True


def make_odd_files(folder: Path) -> list[Case]:
    """Write all files into an existing folder."""
    cases = []
    here = os.fsencode(folder) + b"/"
    sources = [make_wav_files, make_other_files, make_coded_files]
    if FFMPEG:
        sources.append(make_ffmpeg_files)
    for source in sources:
        for name, data, expected, *rest in source():
            cases.append(Case(here + name.encode(), expected, *rest))
            assert not os.path.lexists(cases[-1].path), name
            Path(folder / name).write_bytes(data)
    sound = wav()
    for name in (
        b"Brahms \xc3\xa9\xe2\x99\xaf.wav",
        b"a\nb.wav",
        b"-i.wav",
        b"%s:\\*?.wav",
        b"\xff\xfe.wav",
    ):
        cases.append(_write(here + name, sound, RATE))
    cases.append(_write(here + b"x" * 251 + b".wav", sound, RATE))
    return cases + list(_make_special_files(folder, here)) + make_changing_files(folder)


def make_changing_files(folder: Path) -> list[Case]:
    """Write files that change once while they are read."""
    cases = []
    for act, expected in (("shrinks", "truncated"), ("vanishes", 10 * RATE)):
        for suffix, form, subtype in (
            ("wav", "WAV", "PCM_16"),
            ("flac", "FLAC", "PCM_16"),
            ("mp3", "MP3", None),
        ):
            path = os.fsencode(folder / f"{act}.{suffix}")
            data = encode(form, subtype, tone(10.0))
            cases.append(_write(path, data, expected)._replace(act=act, slack=LOSSY))
    return cases


def _write(path: bytes, data: bytes, expected: str | int) -> Case:
    with open(path, "wb") as file:
        file.write(data)
    return Case(path, expected)


def _make_special_files(folder: Path, here: bytes) -> Iterator[Case]:
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    (folder / "link.wav").symlink_to("16.wav")
    for name, expected in (
        (b"pipe.wav", "not_a_file"),
        (b"folder.wav", "not_a_file"),
        (b"loop.wav", "not_readable"),
        (b"dangling.wav", "vanished"),
        (b"device.wav", "not_a_file"),
        (b"nobody.wav", "vanished"),
        (b"16.wav/x.wav", "vanished"),
        (b"y" * 300 + b".wav", "not_readable"),
        (b"link.wav", RATE),
    ):
        yield Case(here + name, expected)
    for name, data, expected in (
        (b"sparse_zeros.wav", b"", CORRUPT),
        (b"sparse_zeros.mp3", b"", CORRUPT),
        (b"sparse_after_id3.mp3", id3(4000), CORRUPT),
        (b"sparse_after_mp3.mp3", encode("MP3", "MPEG_LAYER_III", tone(2.0)), 2 * RATE),
        (b"sparse_long.wav", wav(b"", rate=4000, size=0xFFFFFFFF), "too_long"),
    ):
        yield _write(here + name, data, expected)._replace(slack=LOSSY)
        os.truncate(here + name, 3 << 30)
    if os.geteuid():
        yield _write(here + b"secret.wav", wav(), "not_readable")
        os.chmod(here + b"secret.wav", 0)
