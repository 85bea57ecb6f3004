"""Making what runs: a Pod's sandbox and its containers, out of its spec, its volumes and its images.

What fails is noted in :class:`Failures` and tried again by the plan; a container whose process could not be executed
has run and ended, like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from podrt.engine.specs import ContainerSpec, Mount, SandboxStatus
from podrt.errors import InvalidError, LaunchError, NotFoundError, PodrtError
from podrt.model.classes import HANDLERS, RuntimeClass
from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.network import files
from podrt.node import convert, selinux, sysctls, volumes
from podrt.node.actions import SetUpSandbox, StartContainer
from podrt.node.context import Context
from podrt.node.env import environment
from podrt.node.facts import Facts
from podrt.node.failures import Failures
from podrt.node.images import ImageFailure, ImagePending, PodImages
from podrt.node.order import containers

Started = Callable[[Pod, Container, str, Facts], None]
Guard = Callable[[Coroutine[None, None, object]], Awaitable[bool]]


class Starter:
    """Of one Pod. ``started(pod, spec, container id, facts)`` is called with each container that runs;
    ``unless_deleted(work)`` does work that may take long and tells whether it was done.
    """

    def __init__(
        self,
        context: Context,
        directory: volumes.PodDirectory,
        pod_volumes: volumes.PodVolumes,
        images: PodImages,
        failures: Failures,
        started: Started,
        unless_deleted: Guard,
    ) -> None:
        self._context = context
        self._directory = directory
        self._volumes = pod_volumes
        self._images = images
        self._failures = failures
        self._started = started
        self._unless_deleted = unless_deleted

    # The sandbox

    async def set_up(self, pod: Pod, action: SetUpSandbox) -> None:
        """Volumes, then the sandbox, then what hangs on its addresses."""
        context = self._context
        if text := sysctls.refusal(pod, context.config.allowed_unsafe_sysctls.split(",")):
            context.fail(pod, sysctls.REASON, f"Pod was rejected: {text}", told=text)
            return
        try:
            self._check_handler(pod)
            if not await self._unless_deleted(self._volumes.set_up(pod, again=True)):
                return
            # Chosen and taken without a pause between: nobody else can have it meanwhile.
            slot = context.id_slot(pod.metadata.uid) if pod.spec.host_users is False else 0
            sizes = context.page_sizes()
            labels = selinux.of_pod(pod, context.selinux, context.selinux_level(pod))
            spec = convert.sandbox_spec(pod, context.config, action.attempt, context.node_name, slot, sizes, labels)
            status = await context.engine.run_sandbox(spec)
            self._write_hosts(pod, status)
        except volumes.VolumeError as error:
            self._failures.sandbox(pod, "FailedMount", str(error))
        except (PodrtError, OSError) as error:
            self._failures.sandbox(pod, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        else:
            self._failures.over("")

    def _check_handler(self, pod: Pod) -> None:
        """Raises NotFoundError for a RuntimeClass that is gone, or whose handler is not this node's."""
        name = pod.spec.runtime_class_name
        if name is None:
            return
        found = self._context.store.find(RuntimeClass, "", name)
        if found is None:
            raise NotFoundError(f'RuntimeClass "{name}" not found')
        if found.handler not in HANDLERS:
            raise NotFoundError(f'no runtime for "{found.handler}" is configured: there are {" and ".join(HANDLERS)}')

    def _write_hosts(self, pod: Pod, status: SandboxStatus) -> None:
        if pod.spec.host_network:
            return
        aliases = tuple((alias.ip, tuple(alias.hostnames)) for alias in pod.spec.host_aliases)
        name = convert.hostname(pod, self._context.node_name)
        domain = convert.domain(pod, self._context.config)
        text = files.hosts(status.ips, name, f"{name}.{domain}" if domain else "", aliases)
        # In place: running containers have this file mounted, and a rename would leave them with the old one.
        self._directory.hosts.write_text(text)
        self._directory.hosts.chmod(0o644)

    # Containers

    async def start(self, pod: Pod, start: StartContainer, facts: Facts) -> None:
        """Images, create, start. What fails before there is a container is remembered; a failed exec is its end."""
        spec = next(spec for _, spec in containers(pod) if spec.name == start.name)
        engine = self._context.engine
        if (image_id := await self._image(pod, spec)) is None:
            return
        try:
            if not await self._unless_deleted(self._volumes.set_up(pod)):
                return
            sandbox_id, engine_spec = await self._engine_spec(pod, spec, start, image_id)
        except (InvalidError, OSError) as error:
            self._failures.container(pod, spec, "CreateContainerConfigError", str(error))
            return
        try:
            engine_spec = convert.targeted(spec, engine_spec, facts)
            container_id = await engine.create_container(sandbox_id, engine_spec)
        except (PodrtError, OSError) as error:
            self._failures.container(pod, spec, "CreateContainerError", str(error))
            return
        self._context.event(pod, "Normal", "Created", f"Container created: {spec.name}", spec.name)
        try:
            await engine.start_container(container_id)
        except LaunchError as error:
            self._context.event(pod, "Warning", "Failed", f"Error: {error}", spec.name)
        except (PodrtError, OSError) as error:
            await engine.remove_container(container_id)
            self._failures.container(pod, spec, "RunContainerError", str(error))
        else:
            self._failures.over(spec.name)
            self._started(pod, spec, container_id, facts)
            self._context.event(pod, "Normal", "Started", f"Container started: {spec.name}", spec.name)

    async def _image(self, pod: Pod, spec: Container) -> str | None:
        """The id of the container's image, once those of its volumes are mounted, too; None: it has to wait."""
        wanted = spec.image
        try:
            image_id = await self._images.ensure(pod, spec)
            for volume in self._volumes.images_missing(pod, spec):
                assert volume.image is not None
                wanted = volume.image.reference
                asked = Container(name=spec.name, image=wanted, image_pull_policy=volume.image.pull_policy)
                found = await self._images.ensure(pod, asked, key=f"volume {volume.name}")
                self._volumes.set_up_image(pod, volume, found)
        except ImagePending:
            self._failures.pulling(spec)
            return None
        except ImageFailure as error:
            self._failures.image(pod, spec, wanted, error)
            return None
        except (InvalidError, OSError) as error:
            self._failures.container(pod, spec, "CreateContainerConfigError", str(error))
            return None
        return image_id

    async def _engine_spec(
        self, pod: Pod, spec: Container, start: StartContainer, image_id: str
    ) -> tuple[str, ContainerSpec]:
        """(sandbox id, what the engine is to create)."""
        context = self._context
        convert.refuse_root(convert.security(pod, spec), context.images.resolve(image_id).config.user)
        newest = max(context.sandboxes_of(pod.metadata.uid), key=lambda box: box.spec.attempt)
        host_ips = context.node_facts().host_ips
        values = environment(
            pod,
            spec,
            host_ips=host_ips,
            pod_ips=newest.ips or host_ips,
            allocatable=context.allocatable(),
            objects=context.store,
            volumes=self._volumes,
        )
        return newest.id, convert.container_spec(
            pod,
            spec,
            start,
            image_id=image_id,
            environment=values,
            mounts=await self._volumes.mounts(spec, values, self._extra_mounts(pod, spec, start.attempt)),
            devices=self._volumes.devices(spec),
            config=context.config,
            node_memory=context.node_memory,
            page_sizes=context.page_sizes(),
            labels=selinux.of_container(pod, spec, context.selinux, context.selinux_level(pod)),
        )

    def _extra_mounts(self, pod: Pod, spec: Container, attempt: int) -> list[Mount]:
        message = self._directory.termination_log(spec.name, attempt)
        message.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        found = [
            Mount(
                source=str(message), destination=spec.termination_message_path or "/dev/termination-log", relabel=True
            )
        ]
        if not pod.spec.host_network:
            found.append(Mount(source=str(self._directory.hosts), destination="/etc/hosts", relabel=True))
        return found
