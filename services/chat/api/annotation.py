"""The rows of the table of operations that are about the annotators' queue."""

from services.chat.access.caller import PersonQuery
from services.chat.annotation.items import (
    AddedBatch,
    AnnotationItem,
    Guidelines,
    ItemSkipped,
    ItemTakenBack,
    Progress,
    SkipItem,
)
from services.chat.api.operation import Operation

ANNOTATION = (
    Operation(
        name="annotate",
        summary="The annotators' page: items reserved for one person at a time, with guidelines beside them.",
        method="GET",
        path="/annotate",
        requires="public",
        response="text/html",
    ),
    Operation(
        name="add_items",
        summary="Add to what annotators are asked, one JSON object a line (NDJSON), each taken or refused by itself.",
        method="POST",
        path="/v1/annotation/items",
        requires="operator",
        response=AddedBatch,
        errors=(400, 413, 415, 503),
    ),
    Operation(
        name="next_item",
        summary="What the caller holds, or an item that waits, reserved for them; judge it by feedback on its answers.",
        method="POST",
        path="/v1/annotation/next",
        requires="feedback",
        body=PersonQuery,
        response=AnnotationItem,
        errors=(400, 404, 413, 415, 503),
    ),
    Operation(
        name="skip_item",
        summary="Leave an item to others; again and again it is the same.",
        method="POST",
        path="/v1/annotation/items/{item_id}/skip",
        requires="feedback",
        body=SkipItem,
        response=ItemSkipped,
        errors=(400, 404, 413, 415, 503),
    ),
    Operation(
        name="take_item_back",
        summary="Undo a skip: the item is the caller's again, unless others have it now; again it is the same.",
        method="DELETE",
        path="/v1/annotation/items/{item_id}/skip",
        requires="feedback",
        query=PersonQuery,
        response=ItemTakenBack,
        errors=(400, 404, 409, 503),
    ),
    Operation(
        name="annotation_progress",
        summary="How far the queue is, who judged how much, and how far they agree (Krippendorff's α).",
        method="GET",
        path="/v1/annotation/progress",
        requires="feedback",
        query=PersonQuery,
        response=Progress,
        errors=(400, 503),
    ),
    Operation(
        name="guidelines",
        summary="How items are to be judged, as the operator's file says it now.",
        method="GET",
        path="/v1/annotation/guidelines",
        requires="feedback",
        response=Guidelines,
    ),
)
