"""`dataclass` and `replace` for modules on the start-up path.

The standard library's `dataclasses` imports `inspect` and compiles source text for every class: together 20
of the 45 ms that `cloister run` may take (docs/adr/0004-values.md). This gives the same classes for the
subset that STYLE asks for, with plain closures. Type checkers see the standard library's.

Rule 1: only frozen classes with slots, without inheritance. Anything else belongs to `dataclasses`.
Rule 2: off the start-up path, use `dataclasses`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:

    class _Factory:
        __slots__ = ("make",)

        def __init__(self, make):
            self.make = make

    def field(*, default_factory):
        """A default made anew for each value."""
        return _Factory(default_factory)

    def replace(value, /, **changes):
        """A copy of `value` with some fields changed. TypeError for a field that it does not have."""
        fields = type(value).__slots__
        return type(value)(**({name: getattr(value, name) for name in fields} | changes))

    def dataclass(*, frozen, slots, kw_only=False):
        """As `dataclasses.dataclass(frozen=True, slots=True, kw_only=…)`."""
        if not (frozen and slots):
            raise TypeError("cloister.values.dataclass makes frozen classes with slots only")
        return lambda cls: _make(cls, kw_only)

    def _make(cls, kw_only):
        names = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        put = object.__setattr__

        def __init__(self, *positional, **named):
            if len(positional) > (0 if kw_only else len(names)):
                raise TypeError(f"{cls.__name__}() got too many positional arguments")
            for name, value in zip(names, positional, strict=False):
                if name in named:
                    raise TypeError(f"{cls.__name__}() got two values for {name!r}")
                put(self, name, value)
            for name in names[len(positional) :]:
                if name in named:
                    put(self, name, named.pop(name))
                elif name in defaults:
                    default = defaults[name]
                    put(self, name, default.make() if type(default) is _Factory else default)
                else:
                    raise TypeError(f"{cls.__name__}() misses the argument {name!r}")
            if named:
                raise TypeError(f"{cls.__name__}() has no field {next(iter(named))!r}")

        def __setattr__(self, name, _value):
            raise AttributeError(f"cannot assign to {name!r}: {cls.__name__} is frozen")

        def __delattr__(self, name):
            raise AttributeError(f"cannot delete {name!r}: {cls.__name__} is frozen")

        def _values(self):
            return tuple(getattr(self, name) for name in names)

        def __eq__(self, other):
            return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

        def __hash__(self):
            return hash((type(self), _values(self)))

        def __repr__(self):
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            return f"{cls.__qualname__}({fields})"

        def __reduce__(self):
            return (_restore, (type(self), _values(self)))

        made = {
            "__init__": __init__,
            "__setattr__": __setattr__,
            "__delattr__": __delattr__,
            "__eq__": __eq__,
        }
        made |= {"__hash__": __hash__, "__repr__": __repr__, "__reduce__": __reduce__}
        made |= {"__slots__": names, "__match_args__": () if kw_only else names}
        own = {
            name: value
            for name, value in cls.__dict__.items()
            if name not in names and name not in ("__dict__", "__weakref__")
        }
        return type(cls)(cls.__name__, cls.__bases__, own | {k: v for k, v in made.items() if k not in own})

    def _restore(cls, values):
        return cls(**dict(zip(cls.__slots__, values, strict=True)))
