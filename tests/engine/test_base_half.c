/* 16-bit floats: every bit pattern, and rounding against exact arithmetic. */
#include <stdint.h>

#include "base/half.h"
#include "tests/test.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double f16_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void every_f16_round_trips(void)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = dn_f16_to_f32((uint16_t)bits);
        if ((bits & 0x7C00) == 0x7C00 && (bits & 0x3FF)) {
            CHECK(isnan(value) && isnan(dn_f16_to_f32(dn_f32_to_f16(value))));
        } else {
            CHECK_MSG((bits & 0x7C00) == 0x7C00 ? isinf(value) != 0 : (double)value == f16_value((uint16_t)bits), "%04x", bits);
            CHECK_MSG(dn_f32_to_f16(value) == bits, "%04x", bits);
        }
    }
}

static void every_bf16_round_trips(void)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = dn_bf16_to_f32((uint16_t)bits);
        if ((bits & 0x7F80) == 0x7F80 && (bits & 0x7F)) {
            CHECK(isnan(value) && isnan(dn_bf16_to_f32(dn_f32_to_bf16(value))));
        } else {
            CHECK(bits_of(value) == bits << 16 && dn_f32_to_bf16(value) == bits);
        }
    }
}

/* Between each two neighbours: below the middle goes down, above goes up, the middle goes to the even one. */
static void f16_rounds_to_nearest_even(void)
{
    for (uint32_t bits = 0; bits < 0x7BFF; bits++) {
        double low = f16_value((uint16_t)bits), high = f16_value((uint16_t)(bits + 1));
        float middle = (float)((low + high) / 2);
        CHECK((double)middle == (low + high) / 2);
        CHECK_MSG(dn_f32_to_f16(middle) == (bits % 2 ? bits + 1 : bits), "tie above %04x", bits);
        CHECK_MSG(dn_f32_to_f16(nextafterf(middle, 0)) == bits, "below the middle above %04x", bits);
        CHECK_MSG(dn_f32_to_f16(nextafterf(middle, 1e9f)) == bits + 1, "above the middle above %04x", bits);
        CHECK(dn_f32_to_f16(-middle) == (dn_f32_to_f16(middle) | 0x8000));
    }
}

static void bf16_rounds_to_nearest_even(void)
{
    for (uint32_t bits = 0; bits < 0x7F7F; bits++) {
        uint32_t middle = bits << 16 | 0x8000;
        CHECK(dn_f32_to_bf16(float_of(middle)) == (bits % 2 ? bits + 1 : bits));
        CHECK(dn_f32_to_bf16(float_of(middle - 1)) == bits);
        CHECK(dn_f32_to_bf16(float_of(middle + 1)) == bits + 1);
    }
}

static void edges(void)
{
    CHECK(dn_f32_to_f16(65504.0f) == 0x7BFF && dn_f32_to_f16(65519.996f) == 0x7BFF && dn_f32_to_f16(65520.0f) == 0x7C00);
    CHECK(dn_f32_to_f16(INFINITY) == 0x7C00 && dn_f32_to_f16(-INFINITY) == 0xFC00 && dn_f32_to_f16(1e30f) == 0x7C00);
    CHECK(dn_f32_to_f16(0x1p-25f) == 0 && dn_f32_to_f16(0x1.000002p-25f) == 1 && dn_f32_to_f16(-0.0f) == 0x8000);
    CHECK(dn_f32_to_f16(1e-40f) == 0);
    CHECK(dn_f32_to_bf16(INFINITY) == 0x7F80 && dn_f32_to_bf16(3.4e38f) == 0x7F80 && dn_f32_to_bf16(1.0f) == 0x3F80);
    CHECK(isnan(dn_bf16_to_f32(dn_f32_to_bf16(float_of(0x7F800001)))));
    CHECK(isnan(dn_f16_to_f32(dn_f32_to_f16(float_of(0x7F800001)))));
}

int main(void)
{
    RUN(every_f16_round_trips);
    RUN(every_bf16_round_trips);
    RUN(f16_rounds_to_nearest_even);
    RUN(bf16_rounds_to_nearest_even);
    RUN(edges);
    return test_end();
}
