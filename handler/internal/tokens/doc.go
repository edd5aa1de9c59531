// Package tokens counts what Azure OpenAI will count: the tokens of a request
// before it is sent, and of an answer that came without usage.
//
// Three strengths, from cheap to dear:
//   - [BoundBytes] does not tokenize: a byte-level encoding has at most one
//     token per byte. For images it relies on what is known of each model.
//   - [BoundExact] tokenizes and adds a margin.
//   - [Prompt] and [Completion] are the best estimate; text-only chats are exact.
//
// Texts are split and merged here, with the ranks of tiktoken that
// pkoukk/tiktoken-go-loader brings; see [Text].
//
// Invariants: tokens are those of tiktoken's encode_ordinary; work is linear in
// the size of the input, whatever it is, and bounded (see [TextBytesMax]);
// nothing panics on any input; a vocabulary is loaded when it is first needed,
// never at start-up, and once.
//
// Not done here: hidden input (stored conversations, files, searches) cannot be
// counted. [HidesInput] tells when a request has some, and the caller then
// assumes the model's whole context.
package tokens
