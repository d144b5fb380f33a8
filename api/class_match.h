/* Which class a prompt names, for the dialects whose clients send words where this service takes a class ("a photo of an ankle boot").
 * Pure; any thread.
 *
 * "class:7" is the class of that index, "class:Ankle boot" the class of that name; a bare "7" is none. Otherwise the prompt is read as words
 * (letters and digits; case, punctuation and a plural's ending do not matter), and a class is named when all words of its name, or of one
 * of its synonyms (between commas or slashes: "T-shirt/top"), stand in it one after the other. Of names that overlap the longest wins
 * ("ankle boot" is no "boot"), a word as it stands before its plural; a hyphen joins ("t-shirt" is no "shirt"). Words that every prompt has
 * (articles, "photo of", "high quality", ...) name no class, unless the whole prompt is that name. All other words are left alone: a model
 * that knows classes alone cannot draw them, and a dialect's answer says what was drawn. */
#ifndef API_CLASS_MATCH_H
#define API_CLASS_MATCH_H

#include "api/model_description.h"
#include "api/problem.h"

/* True: *index is the class. Else it refuses at `field` (a JSON Pointer or a name, whose last part the sentence begins with): when there is
 * no class, with the nearest names by edit distance; when there are several, with those; each with its index as "class:N". The sentence names
 * the model's classes, never the prompt. A prompt over API_PROMPT_BYTES_MAX is refused. */
bool api_match_class(uint32_t *index, const api_model *model, const char *prompt, const char *field, api_problem *problem);

/* Whether a prompt names nothing at all: blank. */
bool api_prompt_is_blank(const char *prompt);

#endif
