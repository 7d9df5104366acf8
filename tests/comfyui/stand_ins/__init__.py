"""Nodes that behave as some of other packs do, for graphs with those beside ours; ComfyUI loads this folder."""

from .bypassing import AttentionBypass, ForwardReplacement, TemporaryForward
from .samplers import OwnNoiseSampler, ScheduledGuidance, TwoExpertSampler

NODE_CLASS_MAPPINGS = {
    "StandIn_AttentionBypass": AttentionBypass,
    "StandIn_ForwardReplacement": ForwardReplacement,
    "StandIn_TemporaryForward": TemporaryForward,
    "StandIn_OwnNoiseSampler": OwnNoiseSampler,
    "StandIn_ScheduledGuidance": ScheduledGuidance,
    "StandIn_TwoExpertSampler": TwoExpertSampler,
}
