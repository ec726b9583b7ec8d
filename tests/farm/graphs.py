"""Graphs that the tests enqueue, in InvokeAI's node types."""


def _edges(text):
    def end(s):
        node, field = s.split(".")
        return {"node_id": node, "field": field}
    return [{"source": end(a), "destination": end(b)} for a, b in (line.split(" -> ") for line in text.strip().splitlines())]


def graph(nodes, edges=""):
    return {"id": "farm", "nodes": {k: dict(v, id=k) for k, v in nodes.items()}, "edges": _edges(edges) if edges.strip() else []}


def add(a=1, b=2):
    """One integer addition: the least work there is."""
    return graph({"sum": {"type": "add", "a": a, "b": b, "use_cache": False}})


PICTURE_EDGES = """loader.clip -> prompt.clip
loader.clip -> negative.clip
loader.unet -> denoise.unet
prompt.conditioning -> denoise.positive_conditioning
negative.conditioning -> denoise.negative_conditioning
noise.noise -> denoise.noise
denoise.latents -> decode.latents
loader.vae -> decode.vae"""


def picture(steps=4, seed=7, size=64, prompt="a red apple", model=None, **denoise):
    """Text to picture; without MODEL the node's default one."""
    model = model or {"key": "emoji", "hash": "", "name": "emoji", "base": "sd-1", "type": "main"}
    return graph({
        "loader": {"type": "main_model_loader", "model": model},
        "prompt": {"type": "compel", "prompt": prompt},
        "negative": {"type": "compel", "prompt": ""},
        "noise": {"type": "noise", "seed": seed, "width": size, "height": size, "use_cpu": True},
        "denoise": dict({"type": "denoise_latents", "steps": steps, "cfg_scale": 5.0, "scheduler": "ddim"}, **denoise),
        "decode": {"type": "l2i", "is_intermediate": False},
    }, PICTURE_EDGES)


def long_picture(steps=900, size=128, seed=7):
    """Renders for many seconds on any machine: something to interrupt."""
    return picture(steps=steps, size=size, seed=seed)
