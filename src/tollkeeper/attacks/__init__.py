"""Ways to copy an encoder through its answers; an attack knows an `Encoder` and nothing else.

Those on classifiers, which are encoders of classes, have a room of their own.

`names.ATTACKS` lists them without loading torch; `names.load(name)` makes one. A new attack is a
file with a subclass of `base.Attack` (or of `offline.Offline` or `viewed.Viewed`) and a line there.
"""
