/* A network as a velocity field: what likelihoods are computed on. Unguided: one condition. One thread calls; a pool works. */
#ifndef DN_EVALUATE_NETWORK_FIELD_H
#define DN_EVALUATE_NETWORK_FIELD_H

#include "backend/backend.h"
#include "diffusion/schedule.h"
#include "evaluate/likelihood.h"
#include "model/model.h"

typedef struct dn_network_field dn_network_field;

typedef struct dn_network_field_options {
    const dn_backend *backend; /* the CPU's */
    dn_device *device;
    const dn_model *model; /* with its weights, which are read during the call only; the rest is borrowed, as all here */
    const dn_training_schedule *training;
    unsigned threads; /* 0: all available */
    uint32_t products_max; /* probes of one call */
} dn_network_field_options;

dn_status dn_network_field_create(dn_network_field **out, const dn_network_field_options *options, dn_error *error);
void dn_network_field_free(dn_network_field *field); /* accepts NULL */

/* The field under a condition (NULL: the network takes none). It lives as long as the network field and until the next call. */
dn_flow_field dn_network_field_of(dn_network_field *field, const dn_condition *condition);

#endif
