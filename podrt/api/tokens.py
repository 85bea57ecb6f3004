"""``serviceaccounts/token`` and ``tokenreviews``: asking for a token, and asking whose one is."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec.structs import replace

from podrt.api import body, protobuf
from podrt.api.agent import AgentApi
from podrt.api.call import routed
from podrt.model import codec
from podrt.model.base import format_time, now
from podrt.model.kinds import BY_NAME, Resource
from podrt.model.meta import ObjectMeta
from podrt.model.tokens import API_VERSION, TokenRequest, TokenReview


class TokenHandlers:
    """Both are answers to a POST; nothing is stored."""

    def __init__(self, agent: AgentApi) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        item = "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return [
            web.post(item, routed("create", BY_NAME["serviceaccounts"], self._request)),
            web.post(f"/apis/{API_VERSION}/tokenreviews", self._review),
        ]

    async def _request(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        kind = body.content_type(request)
        data = await request.read()
        document = protobuf.document(data) if kind == protobuf.CONTENT_TYPE else codec.parse(data, kind)
        asked, _ = codec.convert(TokenRequest, document, body.field_validation(request))
        status = self._agent.tokens.issue(namespace, name, asked.spec)
        metadata = ObjectMeta(name=name, namespace=namespace, creation_timestamp=format_time(now()))
        return _json(replace(asked, metadata=metadata, status=status))

    async def _review(self, request: web.Request) -> web.StreamResponse:
        document = codec.parse(await request.read(), body.content_type(request))
        asked, _ = codec.convert(TokenReview, document, body.field_validation(request))
        return _json(replace(asked, status=self._agent.tokens.review(asked.spec)))


def _json(document: TokenRequest | TokenReview) -> web.Response:
    return web.Response(status=201, body=msgspec.json.encode(document), content_type="application/json")
