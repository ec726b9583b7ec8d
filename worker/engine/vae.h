/* The decoder of the KL autoencoder (Rombach et al. 2022; Esser et al. 2021): latents to pictures. */
#pragma once
#include <jansson.h>
#include "worker/engine/net.h"

enum { VAE_LEVELS_MAX = 8 };

struct vae_config {
    int n_levels, channels[VAE_LEVELS_MAX];  /* 0: picture size */
    int layers, groups, latent_channels;
    double scaling;                          /* the decoder gets latents / scaling */
    bool post_quant;
};

/* vae_config_read reads a diffusers AutoencoderKL config. UNSUPPORTED names what this engine has not, BAD_MODEL what is out of range. */
NODISCARD enum status vae_config_read(const json_t *config, struct vae_config *ret, struct error *err);
/* vae_decode describes the way from scaled latents Z [1, h, w, latent] to a picture [1, h * 2^(levels-1), w * ..., 3] in [-1, 1]. */
struct operand vae_decode(struct net *n, const struct vae_config *c, struct operand z);
