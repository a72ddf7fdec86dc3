"""The loss of the head that never holds the logits.

    chunked = use_chunked_loss(model)  # once rows are frozen; None, with the reason in the log, where it does not hold
    model(input_ids=ids, labels=ids).loss.backward()
    chunked.remove()

`linear_cross_entropy` is the arithmetic: it knows tensors only. `chunked` makes a transformers causal language model use
it, and `deferred` has what stands for the logits between the model's head and its loss.
"""
