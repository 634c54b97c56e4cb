"""People themselves: all that is theirs, erased; the rows of the table that are about that."""

from services.chat.access.caller import PersonQuery
from services.chat.api.operation import Operation
from services.chat.conversations.people import PersonErased

PEOPLE = (
    Operation(
        name="erase_everything",
        summary="Erase all that is the caller's, votes too, for good: their key is deleted, and no copy can be read.",
        method="DELETE",
        path="/v1/people/me",
        rpcs=("/rlhf.v1.ConversationService/EraseEverything",),
        requires="chat",
        query=PersonQuery,
        response=PersonErased,
        errors=(400, 503),
    ),
    Operation(
        name="erase_person",
        summary="Erase all that is a person's, as they may themselves; `person` is the hash that stands for the name.",
        method="DELETE",
        path="/v1/people/{person}",
        requires="operator",
        response=PersonErased,
        errors=(400, 503),
    ),
)
