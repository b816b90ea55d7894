"""Every error that a user can cause, as one tree.

    PixtellError
      OptionError         a flag or argument with a value that cannot work
      ImageError          one image that cannot be read; carries its name and the reason
      DatasetError        a data set that cannot be used
      EncoderError        an encoder that cannot be found, read or run
      ModelError          a model configuration that makes no model
      CheckpointError     a checkpoint that is missing, cut short or of another kind
      FeatureCacheError   a feature cache that is damaged, locked or belongs to something else
      TrainingError       a training that cannot go on
      ScoringError        captions and references that cannot be scored
      StorageError        a file that cannot be written: disk full, no permission
      DownloadError       something from the network that did not come, or came broken

The message is one sentence: what was wrong, with the value, then what to do. The command line prints it and
exits; the server answers with it. Errors of lower levels (OSError, KeyError, ...) are translated where they
happen, with `from`.
"""


class PixtellError(Exception):
    """The root; the doors (command line, server) catch this and nothing wider."""


class OptionError(PixtellError):
    """A flag or argument with a value that cannot work."""


class ImageError(PixtellError):
    """One image that cannot be read.

    name: the path, or a word for an image that has none; reason: why, and what to do.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class DatasetError(PixtellError):
    """A data set that cannot be used."""


class EncoderError(PixtellError):
    """An encoder that cannot be found, read or run."""


class ModelError(PixtellError):
    """A model configuration that makes no model."""


class CheckpointError(PixtellError):
    """A checkpoint that is missing, cut short or of another kind."""


class FeatureCacheError(PixtellError):
    """A feature cache that is damaged, locked or belongs to something else."""


class TrainingError(PixtellError):
    """A training that cannot go on."""


class ScoringError(PixtellError):
    """Captions and references that cannot be scored."""


class StorageError(PixtellError):
    """A file that cannot be written."""


class DownloadError(PixtellError):
    """Something from the network that did not come, or came broken."""
