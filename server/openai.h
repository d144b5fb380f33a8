/* What route_openai.c and openai_stream.c share. */
#ifndef SERVER_OPENAI_H
#define SERVER_OPENAI_H

#include "api/openai_answer.h"
#include "api/openai_request.h"
#include "server/service.h"

/* Answers with a job's stream as OpenAI has it: at most `partial_images` pictures of each image from the running denoising loop, then each
 * finished one, or an error. Needs no state of the request's. */
void openai_stream(http_request *request, const char *job_id, unsigned partial_images);

/* A finished image, its PNG or (png NULL) its url to be filled in; borrows `asked`, the job's request, for the class's name. */
api_openai_image openai_image(const store_image *image, const api_request *asked);

/* Why a job that has ended has no pictures. */
void openai_ended_badly(const store_job *job, api_problem *problem);

#endif
