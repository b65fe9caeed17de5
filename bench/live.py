"""A model that is in use: a module tree whose parameters are views of one flat buffer."""

from torch import Tensor, nn

from store.parameters import ParameterSpace


def live_model(space: ParameterSpace, flat: Tensor) -> nn.Module:
    """Modules with the state dict's names; what is written to the buffer is what the model has."""
    root = nn.Module()
    for name, view in space.views(flat).items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:  # noqa: SLF001 - hasattr would find methods of Module too
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(view, requires_grad=False))
    return root
