/* The names that AUTOMATIC1111's API has for samplers and schedulers, and what they are here. Its names for what this program has (modules/
 * sd_samplers_kdiffusion.py, sd_samplers_timesteps.py and sd_schedulers.py of stable-diffusion-webui 1.10), the engine's titles for the
 * rest. A name of its for what this program has not ("DPM++ 2S a", "Align Your Steps") is no name here. Pure; any thread. */
#ifndef API_SDAPI_NAMES_H
#define API_SDAPI_NAMES_H

#include "api/model_description.h"
#include "diffusion/sampler.h"

typedef struct api_sdapi_scheduler {
    const char *name, *label, *alias; /* alias NULL: none */
    double rho;                       /* "default_rho", -1: it has none */
    const char *option, *value;       /* the member of a POST /generate body that it is; NULL: none */
} api_sdapi_scheduler;

/* The name as it is listed. */
const char *api_sdapi_sampler_name(const dn_sampler *sampler);

/* A sampler by its name, an alias or the engine's name or title (which infotexts have), in any case; NULL: unknown. A scheduler's label at
 * the end ("DPM++ 2M Karras") is taken for one, as webui takes it: *scheduler, which is left alone when there is none. */
const dn_sampler *api_sdapi_find_sampler(const char *text, const api_sdapi_scheduler **scheduler);

/* A scheduler by name, label or alias, in any case; NULL: unknown. */
const api_sdapi_scheduler *api_sdapi_find_scheduler(const char *text);
const api_sdapi_scheduler *api_sdapi_scheduler_at(size_t index); /* NULL past the end; the first is automatic */

/* The bodies of GET /sdapi/v1/samplers (of those that serve the model; NULL: of all) and /schedulers. malloc'd. */
char *api_sdapi_samplers_body(const api_model *model);
char *api_sdapi_schedulers_body(void);

#endif
