"""The demo model's files, and the sampling settings that suit it: what every host needs to know of it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
TRANSFORMER = "wan2.1_tiny_t2v_fp16.safetensors"
VAE = "wan2.1_tiny_vae_fp16.safetensors"
TEXT_ENCODER = "text_encoder.safetensors"
PROBE = "attribute_probe.safetensors"
#: A rendered clip of its world, and what it shows.
CLIP = "clip.mp4"
CLIP_CAPTION = "A car is driving on the highway"

#: Of its videos: frames, and pixels of a side.
FRAMES = 17
SIZE = 128

#: Euler steps; classifier-free guidance; the flow shift that the model was trained with.
STEPS = 30
GUIDANCE = 5.0
SHIFT = 3.0
