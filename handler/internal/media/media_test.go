package media_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/costgate/costgate/handler/internal/media"
)

// cat joins bytes: numbers are single bytes, be and le make longer ones.
func cat(parts ...any) []byte {
	var out []byte
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			out = append(out, p...)
		case []byte:
			out = append(out, p...)
		case int:
			out = append(out, byte(p))
		}
	}
	return out
}

func be(size int, v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v)[8-size:] }
func le(size int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:size] }
func zeros(n int) []byte           { return make([]byte, n) }

func wavFile(code, channels, rate, bits, dataSize uint64, data []byte, more ...any) []byte {
	width := channels * bits / 8
	return cat("RIFF", le(4, dataSize+36), "WAVE", "LIST", le(4, 3), "abc", 0,
		"fmt ", le(4, 16), le(2, code), le(2, channels), le(4, rate), le(4, rate*width), le(2, width), le(2, bits),
		"data", le(4, dataSize), data, cat(more...))
}

func mp3Frames(n int, header string, size int) []byte {
	return bytes.Repeat(cat(header, zeros(size-4)), n)
}

// crc8 is written by the table of the specification's polynomial, one bit at a time from the top.
func crc8(p []byte) int {
	sum := 0
	for _, b := range p {
		for bit := 7; bit >= 0; bit-- {
			top := sum>>7&1 ^ int(b>>bit)&1
			sum = sum << 1 & 0xff
			if top == 1 {
				sum ^= 7
			}
		}
	}
	return sum
}

func flacFile(total uint64, frames ...[]byte) []byte {
	return cat("fLaC", 0x80, be(3, 34), be(2, 4096), be(2, 4096), zeros(6), be(8, 44100<<44|1<<41|15<<36|total), zeros(16), bytes.Join(frames, nil))
}

func flacFrame(header []byte) []byte { return cat(header, crc8(header), zeros(5)) }

func oggPage(flags int, granule, serial uint64, packets ...[]byte) []byte {
	var lacing, body []byte
	for _, p := range packets {
		for n := len(p); ; n -= 255 {
			lacing = append(lacing, byte(min(n, 255)))
			if n < 255 {
				break
			}
		}
		body = append(body, p...)
	}
	return cat("OggS", 0, flags, le(8, granule), le(4, serial), zeros(8), len(lacing), lacing, body)
}

func opusFile(granule uint64, packets ...[]byte) []byte {
	return cat(oggPage(2, 0, 7, cat("OpusHead", 1, 1, le(2, 312), le(4, 16000), zeros(3))),
		oggPage(0, 0, 7, cat("OpusTags", zeros(600))), oggPage(4, granule, 7, packets...))
}

func vorbisFile(granule uint64, packets ...[]byte) []byte {
	return cat(oggPage(2, 0, 9, cat("\x01vorbis", zeros(4), 2, le(4, 44100), zeros(12), 0xb8, 1)),
		oggPage(0, 0, 9, cat("\x03vorbis", zeros(20)), cat("\x05vorbis", zeros(300))), oggPage(4, granule, 9, packets...))
}

func box(name string, parts ...any) []byte {
	body := cat(parts...)
	return cat(be(4, uint64(len(body)+8)), name, body)
}

func esds(kind, config int) []byte {
	return box("esds", zeros(4), 3, 0x80, 0x80, 0x80, 34, zeros(3), 4, 20, kind, zeros(12), 5, 2, be(2, uint64(config)))
}

func mp4File(ms, frames uint64, config int) []byte {
	return cat(box("ftyp", "M4A "), box("mdat", zeros(300)), box("moov",
		box("mvhd", zeros(12), be(4, 1000), be(4, ms), zeros(80)),
		box("trak", box("mdia", box("mdhd", 1, zeros(19), be(4, 44100), be(8, ms*441/10), zeros(4)), box("minf", box("stbl",
			box("stsd", zeros(4), be(4, 1), be(4, 87), "mp4a", zeros(28), esds(0x40, config)),
			box("stsz", zeros(4), be(4, 3), be(4, frames))))))))
}

func element(id string, parts ...any) []byte {
	body := cat(parts...)
	return cat(id, be(8, 1<<56|uint64(len(body))), body)
}

func webmFile(codec string, duration []byte, parts ...any) []byte {
	info := element("\x2a\xd7\xb1", be(3, 1_000_000))
	if duration != nil {
		info = cat(info, element("\x44\x89", duration))
	}
	return cat(element("\x1a\x45\xdf\xa3", zeros(20)), "\x18\x53\x80\x67", be(8, math.MaxUint64>>7), // of unknown size
		element("\x15\x49\xa9\x66", info), element("\x16\x54\xae\x6b", element("\xae", element("\x86", codec))),
		"\x1f\x43\xb6\x75\xff", cat(parts...))
}

const opus20 = "\x48" // a packet of one frame of 20 ms

func TestDuration(t *testing.T) {
	f := func(name string, data []byte, ms, bound int64) {
		t.Helper()
		got, ok := media.Duration(data)
		if got != ms || ok != (ms > 0) {
			t.Errorf("%s: %d ms, %v; want %d", name, got, ok, ms)
		}
		if got := media.Bound(data); got != bound {
			t.Errorf("%s: bound %d ms, want %d", name, got, bound)
		}
	}
	f("nothing", nil, 0, 0)
	f("unknown", zeros(1001), 0, 2002)

	second := zeros(32_000) // of 16 kHz mono PCM16
	f("wav", wavFile(1, 1, 16_000, 16, 32_000, second), 1000, 1000)
	f("wav, chunks behind", wavFile(1, 1, 16_000, 16, 32_000, second, zeros(3200)), 1000, 1100)
	f("wav from a pipe", wavFile(1, 1, 16_000, 16, 0xffffffff, second), 1000, 1000)
	f("wav, size 0", wavFile(1, 1, 16_000, 16, 0, second), 1000, 1000)
	f("wav, cut", wavFile(1, 1, 16_000, 16, 64_000, second), 1000, 1000)
	f("wav, 24-bit stereo", wavFile(1, 2, 48_000, 24, 32_000, second), 112, 112)
	f("wav, A-law", wavFile(6, 1, 8000, 8, 32_000, second), 4000, 4000)
	f("wav, byte rate", wavFile(0x11, 1, 4000, 8, 32_000, second), 8000, 64_000)
	f("wav, byte rate 0", wavFile(0x11, 1, 0, 4, 32_000, second), 0, 64_112)
	f("wav, rate 0", wavFile(1, 1, 0, 16, 32_000, second), 0, 64_112)
	f("wav, no data", wavFile(1, 1, 16_000, 16, 0, nil), 0, 0)
	f("wav, RF64", cat("RF64", wavFile(1, 1, 16_000, 16, 0xffffffff, second)[4:]), 1000, 1000)

	plain := cat(0xff, 0xf8, 0xc9, 0x18, 0x00)                     // 4096 samples at 44.1 kHz
	wide := cat(0xff, 0xf8, 0x70, 0x18, 0xc2, 0x80, be(2, 65_534)) // 65,535 samples at the stream's rate
	other := cat(0xff, 0xf9, 0x6e, 0x18, 0x01, 99, be(2, 4800))    // 100 samples at 48 kHz
	f("flac", flacFile(4096, flacFrame(plain)), 93, 93)
	f("flac, total unknown", flacFile(0, flacFrame(plain), flacFrame(plain)), 186, 186)
	f("flac, cut", flacFile(44_100, flacFrame(plain)), 93, 93)
	f("flac that hides silence", flacFile(4096, slices.Repeat([][]byte{flacFrame(wide)}, 100)...), 93, 148_606)
	f("flac, rate of a frame", flacFile(0, flacFrame(other)), 3, 3)
	f("flac, wrong checksum", flacFile(4096, cat(plain, crc8(plain)^1, zeros(9))), 0, 114)
	f("flac, head alone", flacFile(441_000), 0, 84)

	v1 := mp3Frames(100, "\xff\xfb\x90\x00", 417) // 128 kbit/s, 44.1 kHz
	f("mp3", v1, 2613, 2613)
	f("mp3, MPEG-2", mp3Frames(100, "\xff\xf3\x40\x00", 36*8), 0, 57600)
	f("mp3, MPEG-2, 24 kHz", mp3Frames(100, "\xff\xf3\x44\x00", 32*3), 2400, 2400)
	f("mp3, MPEG-2.5, 8 kbit/s", mp3Frames(100, "\xff\xe3\x18\x00", 72), 7200, 7200)
	f("layer II", mp3Frames(10, "\xff\xfd\x84\x00", 384), 240, 240)
	f("mp3, changing rates", cat(mp3Frames(10, "\xff\xfb\x94\x00", 384), mp3Frames(10, "\xff\xfb\x54\x00", 192)), 480, 480)
	f("mp3, ID3", cat("ID3", 4, 0, 0, 0, 0, 1, 0, zeros(128), v1), 2613, 2613)
	f("mp3, ID3 with a footer", cat("ID3", 4, 0, 0x10, 0, 0, 1, 0, zeros(138), v1), 2613, 2613)
	f("mp3, tag behind", cat(v1, "TAG", zeros(125)), 2613, 2613+128)
	f("mp3, table of contents", cat("\xff\xfb\x90\x00", zeros(32), "Xing", zeros(377), v1), 2613, 2613)
	f("mp3, begun in the middle", v1[300:], 2587, 2587+117)
	f("mp3, cut", v1[:41_500], 2613, 2613)
	f("mp3 in other bytes", cat(v1, zeros(2*len(v1))), 0, 2613+166_800)

	packets := slices.Repeat([][]byte{cat(opus20, zeros(60))}, 50)
	f("opus", opusFile(48_000, packets...), 1000-6, 1000)
	f("opus, long packets", opusFile(2*5760, cat(0x1b, 3), cat(0x1b, 63)), 234, 240)
	f("opus, position lies", opusFile(1<<60, packets...), 1000-6, 1000)
	f("opus, another start", cat(opusFile(480_000-2880, packets[:3]...), oggPage(4, 480_000, 7, packets[:3]...)), 114, 120)
	f("opus, cut", opusFile(48_000, packets...)[:1500], 260-6, 260)
	f("vorbis", vorbisFile(44_100, slices.Repeat([][]byte{zeros(100)}, 50)...), 1000, 1161)
	f("ogg with another codec", oggPage(2, 0, 1, cat("Speex   ", zeros(72))), 0, 216)

	f("ogg with two codecs", cat(oggPage(2, 0, 1, cat("Speex   ", zeros(72))), opusFile(48_000, packets...)), 0, 1000+2*int64(len(opusFile(0, packets...)))+216)
	var many []byte
	for serial := range uint64(16) {
		many = append(many, bytes.ReplaceAll(opusFile(960, []byte(opus20)), le(4, 7), le(4, 100+serial))...)
	}
	f("ogg, many streams", many, 16*14, 320)
	f("ogg, too many streams", cat(many, oggPage(2, 0, 1)), 0, media.LengthMax)

	f("mp4", mp4File(1000, 44, 0x1210), 1000, 1022)
	f("mp4, length lies", mp4File(10, 440, 0x1210), 10, 10_217)
	f("mp4, no length", mp4File(0, 44, 0x1210), 1022, 1022)
	f("mp4, HE-AAC", mp4File(1000, 22, 0x2b92), 1000, 1022)
	f("mp4, two tracks", cat(mp4File(1000, 44, 0x1210), box("stsd", zeros(4), be(4, 1), be(4, 8), "alac", zeros(40))), 1000, 1022+2*int64(len(mp4File(0, 0, 0))+64))
	f("mp4, cut", mp4File(1000, 44, 0x1210)[:200], 0, 400)
	f("mp4, other sound", bytes.Replace(mp4File(1000, 44, 0x1210), []byte("mp4a"), []byte("alac"), 1), 1000, 2*int64(len(mp4File(0, 0, 0))))
	f("mp4 in fragments", cat(mp4File(0, 0, 0x1210), box("moof", box("traf", box("trun", zeros(4), be(4, 44))))), 1022, 1022)

	block := func(at uint64) []byte { return element("\xa3", 0x81, be(2, at), 0x80, opus20, zeros(60)) }
	cluster := cat(element("\xe7", be(2, 900)), block(0), block(20), element("\xa0", element("\xa1", 0x81, be(2, 40), 0, opus20)))
	f("webm", webmFile("A_OPUS", be(8, math.Float64bits(59.25)), cluster), 60, 60)
	f("webm, float", webmFile("A_OPUS", be(4, uint64(math.Float32bits(60))), cluster), 60, 60)
	f("webm, length lies", webmFile("A_OPUS", be(4, uint64(math.Float32bits(1))), cluster), 1, 60)
	f("webm, not a number", webmFile("A_OPUS", be(8, math.Float64bits(math.NaN())), cluster), 60, 60)
	f("webm, no length", webmFile("A_VORBIS", nil, cluster), 960, 960)
	f("webm, endless", webmFile("A_VORBIS", be(8, math.Float64bits(math.Inf(1))), cluster), media.LengthMax, media.LengthMax)
	f("webm, another track", bytes.Replace(webmFile("A_OPUS", nil, cluster), element("\x86", "A_OPUS"), cat(element("\x86", "A_OPUS"), element("\x86", "V_VP9")), 1), 960, 960)
	f("webm, laced", webmFile("A_OPUS", nil, element("\xa3", 0x81, be(2, 0), 0x82, 2, zeros(9))), 360, 360)
}

// TestCut: no file that ends too early is longer than the whole, or panics.
func TestCut(t *testing.T) {
	whole := map[string][]byte{
		"wav": wavFile(1, 1, 8000, 16, 160, zeros(160)), "flac": flacFile(0, flacFrame(cat(0xff, 0xf8, 0xc9, 0x18, 0x00))),
		"mp3": mp3Frames(3, "\xff\xfb\x90\x00", 417), "opus": opusFile(960, []byte(opus20)), "vorbis": vorbisFile(99, zeros(9)),
		"mp4": mp4File(1000, 44, 0x1210), "webm": webmFile("A_OPUS", nil, element("\xa3", 0x81, 0, 0, 0x80, opus20)),
	}
	for name, data := range whole {
		all, _ := media.Duration(data)
		for n := range data {
			if ms, ok := media.Duration(data[:n]); ms > all || ok && ms > media.Bound(data[:n]) {
				t.Errorf("%s: the first %d bytes last %d ms, all %d", name, n, ms, all)
			}
		}
	}
}

func FuzzDuration(f *testing.F) {
	f.Add(wavFile(1, 1, 8000, 16, 160, zeros(160)))
	f.Add(flacFile(0, flacFrame(cat(0xff, 0xf8, 0xc9, 0x18, 0x00))))
	f.Add(cat("ID3", 4, 0, 0, 0, 0, 0, 0, mp3Frames(3, "\xff\xfb\x90\x00", 417)))
	f.Add(opusFile(960, []byte(opus20)))
	f.Add(vorbisFile(99, zeros(9)))
	f.Add(mp4File(1000, 44, 0x1210))
	f.Add(webmFile("A_OPUS", be(8, math.Float64bits(59.25)), element("\xa3", 0x81, 0, 0, 0x80, opus20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		ms, ok := media.Duration(data)
		bound := media.Bound(data)
		if ms < 0 || !ok && ms != 0 || ms > bound || bound > media.LengthMax {
			t.Errorf("%d ms, %v, bound %d", ms, ok, bound)
		}
	})
}

// BenchmarkBound shows that the work is linear: the rate stays.
func BenchmarkBound(b *testing.B) {
	for _, size := range []int{1 << 20, 16 << 20} {
		for name, data := range map[string][]byte{
			"syncs": bytes.Repeat([]byte{0xff}, size), "flac": cat(flacFile(0), bytes.Repeat([]byte{0xff, 0xf8}, size/2)),
			"ogg": bytes.Repeat([]byte("OggS"), size/4), "webm": cat(webmFile("A_OPUS", nil), bytes.Repeat([]byte{0xa3, 0x81, 0}, size/3)),
		} {
			b.Run(fmt.Sprintf("%s/%dMB", name, size>>20), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					media.Bound(data)
				}
			})
		}
	}
}

func TestADTS(t *testing.T) {
	frame := func(size int) []byte {
		f := make([]byte, size)
		copy(f, []byte{0xff, 0xf1, 0x60, 0x40 | byte(size>>11), byte(size >> 3), byte(size<<5) | 0x1f, 0xfc}) // 16 kHz: 64 ms
		return f
	}
	var file []byte
	for range 30 {
		file = append(file, frame(100)...)
	}
	if ms, ok := media.Duration(file); ms != 1920 || !ok {
		t.Errorf("Duration = %d, %v", ms, ok)
	}
	if most := media.Bound(file); most != 1920 {
		t.Errorf("Bound = %d", most)
	}
	if _, ok := media.Duration(append(file[:len(file):len(file)], "junk"...)); ok {
		t.Error("junk behind the frames is not noticed")
	}
	if ms, ok := media.Duration(file[:len(file)-50]); ms != 1920 || !ok { // the last frame is cut off
		t.Errorf("cut: %d, %v", ms, ok)
	}
}
