"""Pictures of latent spaces: fields over a plane with data and curves, speeds along curves, decoded images.

They need matplotlib (the extra `plots`), which is imported when a picture is drawn. Figures are made without
pyplot, so none stays open behind the caller's back: keep what is returned, or pass axes of your own.
"""
