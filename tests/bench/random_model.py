"""A diffusers folder in the shape of Stable Diffusion 1.5, with random float16 weights: as slow as the real one, and the picture is noise.

    python3 -B tests/bench/random_model.py DIR [narrow]      narrow: the same layers, a tenth as wide

Weights are spread evenly with the deviation that keeps a signal's size through a layer, so that numbers stay finite and a GPU draws the power of
real work (products of zeros draw less, and run faster). Standard library only."""
import array, json, math, os, random, shutil, struct, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WIDE = {"unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "text": (12, 3072)}        # text: layers, inner width
NARROW = {"unet": (32, 64, 128, 128), "vae": (32, 32, 64, 64), "text": (2, 192)}
CONTEXT, WORDS, TOKENS, LAYERS, LATENT = 768, 49408, 77, 2, 4


class Shapes(dict):
    """Names of tensors with their shapes, in the order of the network."""

    def linear(self, name, cin, cout, bias=True):
        self[name + ".weight"] = (cout, cin)
        if bias:
            self[name + ".bias"] = (cout,)

    def conv(self, name, cin, cout, side=3):
        self[name + ".weight"] = (cout, cin, side, side)
        self[name + ".bias"] = (cout,)

    def norm(self, name, channels):
        self[name + ".weight"] = self[name + ".bias"] = (channels,)

    def resnet(self, name, cin, cout, times=0):
        self.norm(name + ".norm1", cin)
        self.conv(name + ".conv1", cin, cout)
        if times:
            self.linear(name + ".time_emb_proj", times, cout)
        self.norm(name + ".norm2", cout)
        self.conv(name + ".conv2", cout, cout)
        if cin != cout:
            self.conv(name + ".conv_shortcut", cin, cout, 1)

    def transformer(self, name, c):
        block = name + ".transformer_blocks.0"
        self.norm(name + ".norm", c)
        self.conv(name + ".proj_in", c, c, 1)
        for attention, source in ((".attn1", c), (".attn2", CONTEXT)):
            self.linear(block + attention + ".to_q", c, c, False)
            self.linear(block + attention + ".to_k", source, c, False)
            self.linear(block + attention + ".to_v", source, c, False)
            self.linear(block + attention + ".to_out.0", c, c)
        self.linear(block + ".ff.net.0.proj", c, 8 * c)
        self.linear(block + ".ff.net.2", 4 * c, c)
        for i in (1, 2, 3):
            self.norm("%s.norm%d" % (block, i), c)
        self.conv(name + ".proj_out", c, c, 1)


def unet(channels):
    s, times, last = Shapes(), 4 * channels[0], len(channels) - 1
    s.linear("time_embedding.linear_1", channels[0], times)
    s.linear("time_embedding.linear_2", times, times)
    s.conv("conv_in", LATENT, channels[0])
    x, skips = channels[0], [channels[0]]
    for i, c in enumerate(channels):
        for k in range(LAYERS):
            s.resnet("down_blocks.%d.resnets.%d" % (i, k), x, c, times)
            if i < last:
                s.transformer("down_blocks.%d.attentions.%d" % (i, k), c)
            x = c
            skips.append(c)
        if i < last:
            s.conv("down_blocks.%d.downsamplers.0.conv" % i, c, c)
            skips.append(c)
    s.resnet("mid_block.resnets.0", x, x, times)
    s.transformer("mid_block.attentions.0", x)
    s.resnet("mid_block.resnets.1", x, x, times)
    for i, c in enumerate(reversed(channels)):
        for k in range(LAYERS + 1):
            s.resnet("up_blocks.%d.resnets.%d" % (i, k), x + skips.pop(), c, times)
            if i > 0:
                s.transformer("up_blocks.%d.attentions.%d" % (i, k), c)
            x = c
        if i < last:
            s.conv("up_blocks.%d.upsamplers.0.conv" % i, c, c)
    s.norm("conv_norm_out", x)
    s.conv("conv_out", x, LATENT)
    return s


def decoder(channels):
    s, x = Shapes(), channels[-1]
    s.conv("post_quant_conv", LATENT, LATENT, 1)
    s.conv("decoder.conv_in", LATENT, x)
    s.resnet("decoder.mid_block.resnets.0", x, x)
    s.norm("decoder.mid_block.attentions.0.group_norm", x)
    for layer in ("to_q", "to_k", "to_v", "to_out.0"):
        s.linear("decoder.mid_block.attentions.0." + layer, x, x)
    s.resnet("decoder.mid_block.resnets.1", x, x)
    for i, c in enumerate(reversed(channels)):
        for k in range(LAYERS + 1):
            s.resnet("decoder.up_blocks.%d.resnets.%d" % (i, k), x, c)
            x = c
        if i + 1 < len(channels):
            s.conv("decoder.up_blocks.%d.upsamplers.0.conv" % i, c, c)
    s.norm("decoder.conv_norm_out", x)
    s.conv("decoder.conv_out", x, 3)
    return s


def text_encoder(layers, inner):
    s, width = Shapes(), CONTEXT
    s["text_model.embeddings.token_embedding.weight"] = (WORDS, width)
    s["text_model.embeddings.position_embedding.weight"] = (TOKENS, width)
    for i in range(layers):
        layer = "text_model.encoder.layers.%d." % i
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            s.linear(layer + "self_attn." + part, width, width)
        s.norm(layer + "layer_norm1", width)
        s.linear(layer + "mlp.fc1", width, inner)
        s.linear(layer + "mlp.fc2", inner, width)
        s.norm(layer + "layer_norm2", width)
    s.norm("text_model.final_layer_norm", width)
    return s


class Dice:
    """Random float16 numbers of a given deviation, fast: one block of them, from a place that differs with each use, times a power of two."""
    COUNT = 1 << 20

    def __init__(self, seed):
        self.random = random.Random(seed)
        # sign and mantissa are random, the exponent is that of 1 to 2: deviation 1.53
        self.unit = self.random.getrandbits(16 * self.COUNT) & int.from_bytes(b"\xff\x83" * self.COUNT, "little") | int.from_bytes(b"\x00\x3c" * self.COUNT, "little")
        self.blocks = {}

    def write(self, f, count, deviation):
        power = max(-14, min(0, round(math.log2(deviation / 1.53))))
        if power not in self.blocks:
            self.blocks[power] = (self.unit + power * int.from_bytes(b"\x00\x04" * self.COUNT, "little")).to_bytes(2 * self.COUNT, "little")
        block = memoryview(self.blocks[power])
        while count:
            at = self.random.randrange(self.COUNT // 2)
            n = min(count, self.COUNT - at)
            f.write(block[2 * at:2 * (at + n)])
            count -= n


def write_weights(path, shapes, dice):
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if len(shape) > 1:
                dice.write(f, math.prod(shape), 0.02 if "embedding.weight" in name else math.prod(shape[1:]) ** -0.5)
            else:
                is_norm = name.endswith(".weight")
                f.write(array.array("H", [0x3c00 if is_norm else 0] * shape[0]).tobytes())


def config_of(part, sizes):
    """The config that belongs to SIZES: that of the small fixture, widened."""
    with open(os.path.join(ROOT, "tests/golden/data/fixtures/sd1-tiny", part, "config.json")) as f:
        config = json.load(f)
    if part == "text_encoder":
        config.update(num_hidden_layers=sizes["text"][0], intermediate_size=sizes["text"][1], vocab_size=WORDS, bos_token_id=49406, eos_token_id=49407)
    else:
        config["block_out_channels"] = list(sizes[part])
    return config


def make(folder, narrow=False):
    """Makes FOLDER unless it is there."""
    if os.path.exists(os.path.join(folder, "model_index.json")):
        return folder
    sizes, dice, new = NARROW if narrow else WIDE, Dice(7), folder + ".new"
    fixture = os.path.join(ROOT, "tests/golden/data/fixtures/sd1-tiny")
    shutil.rmtree(new, ignore_errors=True)
    for part, stem, shapes in (("unet", "diffusion_pytorch_model", unet(sizes["unet"])), ("vae", "diffusion_pytorch_model", decoder(sizes["vae"])),
                               ("text_encoder", "model", text_encoder(*sizes["text"]))):
        os.makedirs(os.path.join(new, part))
        with open(os.path.join(new, part, "config.json"), "w") as f:
            json.dump(config_of(part, sizes), f)
        write_weights(os.path.join(new, part, stem + ".safetensors"), shapes, dice)
    shutil.copytree(os.path.join(fixture, "scheduler"), os.path.join(new, "scheduler"))
    shutil.copytree(os.path.join(ROOT, "models/tokenizers/clip"), os.path.join(new, "tokenizer"))
    shutil.copy(os.path.join(fixture, "model_index.json"), new)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(new, folder)
    return folder


if __name__ == "__main__":
    make(os.path.abspath(sys.argv[1]), narrow="narrow" in sys.argv[2:])
