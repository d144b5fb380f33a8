/* 16-bit floats in storage only: IEEE binary16 (F16) and bfloat16 (BF16), rounded to nearest even. */
#ifndef DN_BASE_HALF_H
#define DN_BASE_HALF_H

#include <stdint.h>

float dn_f16_to_f32(uint16_t bits);
uint16_t dn_f32_to_f16(float value);
float dn_bf16_to_f32(uint16_t bits);
uint16_t dn_f32_to_bf16(float value);

#endif
