/* Pieces of bodies that jobs, lists and events share. Inside api/ only: callers outside use views.h. */
#ifndef API_VIEW_PARTS_H
#define API_VIEW_PARTS_H

#include "api/text.h"
#include "api/views.h"

void api_add_job(api_text *text, const api_job_view *job, const char *base_path);
void api_add_image(api_text *text, const char *job_id, const api_image_view *image, const char *base_path);
void api_add_progress(api_text *text, const api_job_view *job);          /* "fraction":... "images_done":..., without braces */
void api_add_position(api_text *text, int64_t position);                 /* < 0: null */
void api_add_rounded(api_text *text, double value, double places);       /* to 1/places; negative or not finite: null */
void api_add_gpu(api_text *text, const char *gpu, const char *plan);     /* ,"gpu":...,"plan":...; "": null */

#endif
