package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strconv"
	"strings"
)

// formPartsMax bounds the parts of a form.
const formPartsMax = 64

// read reads the body of a request: a form, or JSON.
func (c *call) read() error {
	kind, parameters, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return json.Unmarshal(c.body, &c.in)
	}
	reader := multipart.NewReader(bytes.NewReader(c.body), parameters["boundary"])
	for parts := 0; ; parts++ {
		part, err := reader.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case parts == formPartsMax:
			return errors.New("too many parts")
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		if part.FileName() != "" {
			if c.files++; c.file == nil {
				c.file = value
			}
			continue
		}
		if err := c.field(part.FormName(), string(value)); err != nil {
			return err
		}
	}
}

// field takes a field of a form.
func (c *call) field(name, value string) (err error) {
	texts := map[string]*string{
		"model": &c.in.Model, "quality": &c.in.Quality, "size": &c.in.Size, "output_format": &c.in.OutputFormat, "input_fidelity": &c.in.InputFidelity,
	}
	raws := map[string]*json.RawMessage{"prompt": &c.in.Prompt, "background": &c.in.Background, "response_format": &c.in.ResponseFormat}
	switch {
	case texts[name] != nil:
		*texts[name] = value
	case raws[name] != nil:
		*raws[name], err = json.Marshal(value)
	case name == "stream":
		c.in.Stream, err = strconv.ParseBool(value)
	case name == "n":
		var n int
		n, err = strconv.Atoi(value)
		c.in.N = &n
	case name == "partial_images":
		c.in.PartialImages, err = strconv.ParseInt(value, 10, 64)
	}
	return err
}

// text is a value that is a string; empty if it is none.
func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s)
	return s
}

// lowered is a name as it is compared.
func lowered(raw json.RawMessage, otherwise string) string {
	if s := strings.ToLower(text(raw)); s != "" {
		return s
	}
	return otherwise
}
