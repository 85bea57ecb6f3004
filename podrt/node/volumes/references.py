"""Which objects a Pod's volumes and variables are made of. Pure."""

from __future__ import annotations

from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.container import Container
from podrt.model.kinds import Object
from podrt.model.pod import Pod
from podrt.model.storage import PersistentVolumeClaim
from podrt.model.volume import Volume
from podrt.node.volumes import claim


def uses(volume: Volume, pod: Pod, obj: Object) -> bool:
    """Whether a volume's content is made of an object."""
    if isinstance(obj, Pod):
        return volume.downward_api is not None or volume.projected is not None
    name = obj.metadata.name
    if obj.metadata.namespace != pod.metadata.namespace:
        return False
    if isinstance(obj, PersistentVolumeClaim):
        return claim.claim_name(pod, volume) == name
    sources = volume.projected.sources if volume.projected is not None else ()
    if isinstance(obj, ConfigMap):
        return (volume.config_map is not None and volume.config_map.name == name) or any(
            one.config_map is not None and one.config_map.name == name for one in sources
        )
    if isinstance(obj, Secret):
        return (volume.secret is not None and volume.secret.secret_name == name) or any(
            one.secret is not None and one.secret.name == name for one in sources
        )
    return isinstance(obj, ServiceAccount) and any(one.service_account_token is not None for one in sources)


def variables_use(container: Container, obj: ConfigMap | Secret) -> bool:
    """Whether ``env`` or ``envFrom`` of a container names an object."""
    name = obj.metadata.name
    is_map = isinstance(obj, ConfigMap)
    for source in container.env_from:
        ref = source.config_map_ref if is_map else source.secret_ref
        if ref is not None and ref.name == name:
            return True
    for variable in container.env:
        if variable.value_from is not None:
            key = variable.value_from.config_map_key_ref if is_map else variable.value_from.secret_key_ref
            if key is not None and key.name == name:
                return True
    return False
