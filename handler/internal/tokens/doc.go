// Package tokens counts what Azure OpenAI will count: the tokens of a request
// before it is sent, and of an answer that came without usage.
//
// Three strengths, from cheap to dear:
//   - [BoundBytes] does not tokenize: a byte-level encoding has at most one
//     token per byte. For images it relies on what is known of each model.
//   - [BoundExact] tokenizes and adds a margin.
//   - [Prompt] and [Completion] are the best estimate; text-only chats are exact.
//
// Invariants: work is linear in the size of the input and bounded (see
// [TextBytesMax]); nothing panics on any input; an encoding is loaded when it is
// first needed, never at start-up.
//
// Not done here: hidden input (stored conversations, files, searches) cannot be
// counted. [HidesInput] tells when a request has some, and the caller then
// assumes the model's whole context.
package tokens
