"""As the module of ComfyUI's own node Model Sparse Attention makes its override: a function around a patch."""


def make_attention_override(patch, previous):
    def override(func, *args, **kwargs):
        patch.calls += 1
        return func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)

    return override
