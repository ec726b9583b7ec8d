#include "worker/backend/backend.h"

size_t dtype_bytes(enum dtype t)
{
    static const unsigned char bytes[DT_COUNT] = {[DT_F32] = 4, [DT_F16] = 2, [DT_BF16] = 2, [DT_U8] = 1, [DT_I32] = 4};
    return (unsigned)t < DT_COUNT ? bytes[t] : 0;
}

const char *dtype_name(enum dtype t)
{
    static const char *const names[DT_COUNT] = {[DT_F32] = "f32", [DT_F16] = "f16", [DT_BF16] = "bf16", [DT_U8] = "u8", [DT_I32] = "i32"};
    return (unsigned)t < DT_COUNT ? names[t] : "?";
}

static const struct {
    const char *name;
    double tolerance[3];
} ops[OP_COUNT] = {
#define OP(NAME, name, required, f32, f16, bf16) [OP_##NAME] = {name, {f32, f16, bf16}},
#include "worker/backend/ops.def"
#undef OP
};

const char *op_name(enum op_kind k) { return (unsigned)k < OP_COUNT ? ops[k].name : "unknown op"; }

double op_tolerance(enum op_kind k, enum dtype t)
{
    if ((unsigned)k >= OP_COUNT)
        return 0;
    return ops[k].tolerance[t == DT_F16 ? 1 : t == DT_BF16 ? 2 : 0];
}
