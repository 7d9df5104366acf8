"""The only places that know a host: each turns its self-attention calls into `call.AttentionCall`s."""
