"""
fal's table of errors, and the endings a script may ask for.

A script's `outcome` is one of fal's error types, or `ok`, `policy` (refused free of charge), `policy_billed`
(refused after rendering, and charged), `crash` (an unhandled exception), `text` (a 422 whose detail is bare
text) or `not_serialisable` (finished, but its output can't be made JSON).
"""

from typing import Final

REQUEST_ERRORS: Final = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Runner did not start in time"),
    "runner_scheduling_failure": (503, "Could not schedule a runner"),
    "runner_connection_timeout": (503, "Connection to the runner timed out"),
    "runner_disconnected": (503, "Runner disconnected"),
    "runner_connection_refused": (503, "Runner refused the connection"),
    "runner_connection_error": (503, "Could not connect to the runner"),
    "runner_incomplete_response": (502, "Runner sent an incomplete response"),
    "runner_server_error": (500, "Internal Server Error"),
    "internal_error": (500, "Internal error"),
    "client_disconnected": (499, "Client disconnected"),
    "client_cancelled": (499, "Request was cancelled"),
    "bad_request": (400, "Bad request"),
}
MODEL_ERRORS: Final = {
    "internal_server_error": (500, "Internal server error"),
    "generation_timeout": (504, "Generation timed out"),
    "downstream_service_error": (400, "Downstream service error"),
    "downstream_service_unavailable": (500, "Downstream service unavailable"),
    "content_policy_violation": (
        422,
        "The content could not be processed because it was flagged by a content checker.",
    ),
    "no_media_generated": (422, "No media was generated"),
    "image_too_small": (422, "Image is too small"),
    "image_too_large": (422, "Image is too large"),
    "image_load_error": (422, "Failed to load the image"),
    "file_download_error": (422, "Failed to download the file"),
    "face_detection_error": (422, "Could not detect a face"),
    "file_too_large": (422, "File is too large"),
    "feature_not_supported": (422, "Feature is not supported"),
    "video_duration_too_long": (422, "Video is too long"),
    "video_duration_too_short": (422, "Video is too short"),
    "unsupported_image_format": (422, "Unsupported image format"),
    "unsupported_video_format": (422, "Unsupported video format"),
}
SHORTHANDS: Final = {"policy": "content_policy_violation", "policy_billed": "content_policy_violation"}
OUTCOMES: Final = frozenset({"ok", "crash", "text", "not_serialisable", *SHORTHANDS, *REQUEST_ERRORS, *MODEL_ERRORS})
RETRIED: Final = frozenset({503, 504})
"""Codes that fal's queue tries again by itself."""
