/* class_label's meaning as text: a name or a synonym of a class of this model, and what to tell somebody who has none of them. */
#ifndef API_CLASS_LABEL_H
#define API_CLASS_LABEL_H

#include "api/generate_request.h"

/* Finds the class whose whole name, or one of whose comma-separated synonyms, equals `text` (ASCII case-insensitive). A string is
 * never an index. Refuses at `field` (a JSON Pointer, whose last part the sentence begins with) when none or several match; the
 * sentence names the model's classes, never the text. */
bool api_find_class(uint32_t *index, const api_model *model, const char *text, const char *field, api_problem *problem);

/* The first synonym of a class, cut at a whole UTF-8 character to fit. */
void api_class_first_name(char *out, size_t capacity, const api_model *model, uint32_t index);

/* Edits (insert, delete, replace) between two names, ASCII case-insensitive; UINT_MAX for names over 64 bytes. */
unsigned api_name_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes);

/* The same for suggestions: a name that holds the text whole ("boot" in "Ankle boot"), or the other way round, is as near as one edit; where
 * the lengths alone make more than `most` edits it is UINT_MAX. text is NUL-terminated. */
unsigned api_name_nearness(const char *text, size_t bytes, const char *name, size_t name_bytes, unsigned most);

#endif
