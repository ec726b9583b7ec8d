/* Fixture models: small diffusers folders whose weights are a formula of their names, made when first asked for. */
#pragma once
#include "common/error.h"
#include "common/paths.h"

/* fixture_path writes the folder of fixture NAME into RET. It is kept in the build tree and made on the first call; programs that ask
 * at the same time do not disturb each other. The
 * fixture "emoji" is the model that is shipped. NOT_AVAILABLE: there is no such fixture. */
NODISCARD enum status fixture_path(const char *name, char ret[PATH_BYTES], struct error *err);
/* fixture_value returns the stored value (an IEEE half) of element I of the tensor of COMPONENT ("unet.") called NAME with a shape of
 * NDIM sizes. Rule: 64-bit FNV-1a of component and name, plus the index, through splitmix64; its top 24 bits are u in [-1, 1); the value
 * is base + scale * u, where matrices have scale sqrt(3 / fan in), norm weights 1 + 0.1 u, biases 0.05 u, token tables 0.05 u, position
 * tables 0.02 u; rounded to float, then to half. */
unsigned fixture_value(const char *component, const char *name, int ndim, const long long *shape, unsigned long long i);
