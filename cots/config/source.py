"""Section `source`: which data, in which layout. The keys of a source stand beside its reader."""

from typing import Annotated

from pydantic import Field

from cots.config.sections import Sections
from cots.data.sources.coco import CocoSourceConfig
from cots.data.sources.documents.config import DocumentsSourceConfig
from cots.data.sources.folder import FolderSourceConfig
from cots.data.sources.karpathy import KarpathySourceConfig
from cots.data.sources.msrvtt import MsrvttSourceConfig
from cots.data.sources.scenes.config import ScenesSourceConfig
from cots.data.sources.webdataset import WebdatasetSourceConfig

SourceConfig = Annotated[
    ScenesSourceConfig
    | DocumentsSourceConfig
    | KarpathySourceConfig
    | CocoSourceConfig
    | FolderSourceConfig
    | WebdatasetSourceConfig
    | MsrvttSourceConfig,
    Field(discriminator="kind"),
]


class SourceSection(Sections):
    """A file with section `source`."""

    source: SourceConfig = Field(default=ScenesSourceConfig(), description="The data set and its layout.")
