"use strict";
/* Pictures beside or over each other that pan and zoom together. A pane is an OpenSeadragon viewer; the one that was
   touched last leads, and the others copy where it is at every frame. A *spot* is x and y of the middle in pixels of
   the first picture, and z, screen pixels a pixel of it; null shows all of it.

   Traps of pages from disk: no tile is fetched by a request, the canvas drawer draws, and no pixel is read back. */
(function (d4k) {
  const { el } = d4k;
  const DEEPEST = 96; // screen pixels a pixel

  /** What OpenSeadragon needs to know of a picture's tiles. */
  function source(tiles) {
    const last = tiles.levels[tiles.maxLevel];
    return {
      width: last.width,
      height: last.height,
      tileSize: tiles.tileSize,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: tiles.maxLevel,
      getTileUrl: (level, column, row) => `${tiles.path}/${level}/${column}_${row}.${tiles.levels[level].format}`,
    };
  }

  function options(element, tiles) {
    return {
      element,
      tileSources: source(tiles),
      drawer: "canvas",
      loadTilesWithAjax: false,
      crossOriginPolicy: false,
      imageSmoothingEnabled: false,
      smoothTileEdgesMinZoom: Infinity, // it would redraw tiles a pixel too large, and stretch them
      showNavigationControl: false,
      showNavigator: false,
      preserveImageSizeOnResize: true,
      visibilityRatio: 0.1,
      minZoomImageRatio: 0.25,
      maxZoomPixelRatio: DEEPEST,
      animationTime: d4k.calm() ? 0 : 0.25,
      springStiffness: 8,
      blendTime: 0,
      immediateRender: true,
      maxImageCacheCount: 400,
      zoomPerScroll: 1.25,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, flickEnabled: false },
      gestureSettingsTouch: { pinchRotate: false, flickEnabled: false },
    };
  }

  /** Tiles begin and end on whole pixels of the screen: no seams, and at 1:1 no pixel is drawn twice. */
  function alignTiles(image) {
    const place = image._positionTile; // of the release whose hash is checked
    image._positionTile = function (tile, overlap, ...rest) {
      place.call(image, tile, 1, ...rest);
      const ratio = window.OpenSeadragon.pixelDensityRatio;
      const round = (value) => Math.round(value * ratio) / ratio;
      const [left, top] = [round(tile.position.x), round(tile.position.y)];
      const right = round(tile.position.x + tile.size.x);
      const bottom = round(tile.position.y + tile.size.y);
      tile.position = new window.OpenSeadragon.Point(left, top);
      tile.size = new window.OpenSeadragon.Point(right - left, bottom - top);
    };
  }

  // Of tiles that arrive after their picture was left, which happens whenever a reader is quick.
  if (window.OpenSeadragon) window.OpenSeadragon.console.warn = () => {};

  class Panes {
    /** `place` is an element; `moved(spot)` hears of every movement, `pointed(x, y)` of the cursor, null where it left. */
    constructor(place, { moved = () => {}, pointed = () => {} } = {}) {
      this.moved = moved;
      this.pointed = pointed;
      this.layer = el("div", { class: "layer" });
      this.captions = el("div", { class: "captions" });
      place.replaceChildren(this.layer, this.captions);
      this.panes = [];
      this.leader = null;
      this.wanted = null; // the spot of panes that are not open yet
    }

    /** Shows `entries` ({label, alt, picture or null}) at a spot. */
    open(entries, spot) {
      this.close();
      this.wanted = spot;
      this.panes = entries.map((entry, index) => this.make(entry, index));
      this.leader = this.panes.find((pane) => pane.viewer) || null;
    }

    make(entry, index) {
      const element = el("div", { class: "pane", "data-pane": index });
      const caption = el("div", { class: "caption", "data-pane": index }, el("span", { class: "label", text: entry.label }));
      const mark = el("div", { class: "mark", "aria-hidden": "true", hidden: true });
      caption.append(mark);
      this.layer.append(element);
      this.captions.append(caption);
      const pane = { ...entry, element, caption, mark, viewer: null };
      if (entry.picture) pane.viewer = this.start(pane);
      else element.append(el("p", { class: "absent", text: "no picture" }));
      return pane;
    }

    start(pane) {
      const viewer = window.OpenSeadragon(options(pane.element, pane.picture.tiles));
      viewer.canvas.setAttribute("role", "img");
      viewer.canvas.setAttribute("aria-label", pane.alt);
      viewer.addHandler("open", () => this.opened(pane));
      viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
      for (const name of ["canvas-press", "canvas-scroll", "canvas-double-click", "canvas-pinch"]) {
        viewer.addHandler(name, () => this.lead(pane));
      }
      viewer.addHandler("viewport-change", () => pane === this.leader && this.follow());
      viewer.addHandler("tile-load-failed", (event) => d4k.say(`A tile is missing: ${event.tile.getUrl()}`));
      pane.element.addEventListener("pointermove", (event) => this.point(pane, event));
      pane.element.addEventListener("pointerleave", () => this.point(null));
      return viewer;
    }

    opened(pane) {
      alignTiles(pane.viewer.world.getItemAt(0));
      const spot = this.spot;
      pane.ready = true;
      this.placeAll(spot);
      if (this.onOpen && this.panes.every((other) => other.ready || !other.viewer)) this.onOpen();
    }

    lead(pane) {
      if (this.leader === pane) return;
      this.leader = pane;
    }

    get first() {
      return this.panes.find((pane) => pane.viewer) || null;
    }

    get width() {
      return this.first.picture.width;
    }

    /** Where the leader is now, or, unless `current`, where it glides to; `whole` where that shows all. */
    where(current = true) {
      const { viewport } = this.leader.viewer;
      const [centre, zoom] = [viewport.getCenter(current), viewport.getZoom(current)];
      const whole = Math.abs(zoom / viewport.getHomeZoom() - 1) < 1e-4 &&
        viewport.getHomeBounds().getCenter().distanceTo(centre) < 1e-4;
      return { x: centre.x * this.width, y: centre.y * this.width, z: zoom / this.zoomOf(viewport, 1), whole };
    }

    get spot() {
      if (!this.leader || !this.leader.ready) return this.wanted;
      const { x, y, z, whole } = this.where(false);
      return whole ? null : { x, y, z };
    }

    /** OpenSeadragon's zoom, at which a pixel of the first picture is `z` screen pixels. */
    zoomOf(viewport, z) {
      return (z * this.width) / (viewport.getContainerSize().x * (window.devicePixelRatio || 1));
    }

    pointOf(spot) {
      return new window.OpenSeadragon.Point(spot.x / this.width, spot.y / this.width);
    }

    placeAll(spot) {
      for (const { ready, viewer } of this.panes) {
        if (!ready) continue;
        if (spot) {
          viewer.viewport.zoomTo(this.zoomOf(viewer.viewport, spot.z), null, true);
          viewer.viewport.panTo(this.pointOf(spot), true);
        } else viewer.viewport.goHome(true);
      }
      if (this.leader && this.leader.ready) this.follow();
    }

    /** Copies the leader to the others. */
    follow() {
      const { viewport } = this.leader.viewer;
      for (const pane of this.panes) {
        if (!pane.ready) continue;
        if (pane !== this.leader) {
          pane.viewer.viewport.zoomTo(viewport.getZoom(true), null, true);
          pane.viewer.viewport.panTo(viewport.getCenter(true), true);
        }
        this.sharpen(pane);
      }
      if (this.leader.ready) this.moved(this.where());
    }

    /** Beyond 1:1 pixels are squares; below it they are averaged. */
    sharpen(pane) {
      const { viewer, picture } = pane;
      const z = (viewer.viewport.getZoom(true) / this.zoomOf(viewer.viewport, 1)) * (this.width / picture.width);
      const smooth = z < 0.999;
      if (pane.smooth === smooth) return;
      pane.smooth = smooth;
      viewer.drawer.setImageSmoothingEnabled(smooth);
    }

    /** Goes to a spot; null shows all. Glides, where the reader has not asked for less motion. */
    go(spot, atOnce = false) {
      if (!this.leader || !this.leader.ready) {
        this.wanted = spot;
        return;
      }
      const { viewport } = this.leader.viewer;
      if (!spot) return viewport.goHome(atOnce);
      viewport.zoomTo(this.zoomOf(viewport, Math.min(DEEPEST, spot.z)), null, atOnce);
      viewport.panTo(this.pointOf(spot), atOnce);
      viewport.applyConstraints(atOnce);
    }

    zoomBy(factor) {
      if (!this.leader || !this.leader.ready) return;
      this.leader.viewer.viewport.zoomBy(factor);
      this.leader.viewer.viewport.applyConstraints();
    }

    /** Shows a pixel of the first picture as `z` screen pixels, about the same middle. */
    zoomTo(z) {
      if (!this.leader || !this.leader.ready) return;
      const { x, y } = this.where(false);
      this.go({ x, y, z });
    }

    /** Moves the window by screen pixels. */
    panBy(right, down) {
      if (!this.leader || !this.leader.ready) return;
      const { viewport } = this.leader.viewer;
      viewport.panBy(viewport.deltaPointsFromPixels(new window.OpenSeadragon.Point(right, down)));
      viewport.applyConstraints();
    }

    /** After the panes got other sizes: the same spot again. */
    resized() {
      const spot = this.spot;
      for (const pane of this.panes) if (pane.ready) pane.viewer.forceResize();
      this.placeAll(spot);
    }

    /** Marks in every pane what the cursor points at in one. */
    point(pane, event) {
      if (!pane || !pane.ready || (event.pointerType === "touch")) {
        for (const other of this.panes) other.mark.hidden = true;
        return this.pointed(null);
      }
      const box = pane.element.getBoundingClientRect();
      const seen = new window.OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
      const place = pane.viewer.viewport.viewerElementToViewportCoordinates(seen);
      this.pointed({ x: place.x, y: place.y, pane });
      for (const other of this.panes) if (other.ready) this.putMark(other, place, other !== pane);
    }

    putMark(pane, place, elsewhere) {
      const { viewport } = pane.viewer;
      const { width, height } = pane.picture;
      const [x, y] = [Math.floor(place.x * width), Math.floor(place.y * width)];
      const corner = viewport.imageToViewerElementCoordinates(new window.OpenSeadragon.Point(x, y));
      const next = viewport.imageToViewerElementCoordinates(new window.OpenSeadragon.Point(x + 1, y + 1));
      const size = next.x - corner.x;
      pane.mark.hidden = x < 0 || y < 0 || x >= width || y >= height || (size < 6 && !elsewhere);
      pane.mark.classList.toggle("pixel", size >= 6);
      const place_ = size >= 6 ? corner : new window.OpenSeadragon.Point((corner.x + next.x) / 2, (corner.y + next.y) / 2);
      pane.mark.style.transform = `translate(${place_.x}px, ${place_.y}px)`;
      pane.mark.style.width = pane.mark.style.height = size >= 6 ? `${size}px` : "";
    }

    close() {
      for (const pane of this.panes) if (pane.viewer) pane.viewer.destroy();
      this.panes = [];
      this.leader = null;
      this.layer.replaceChildren();
      this.captions.replaceChildren();
    }
  }

  d4k.Panes = Panes;
})(window.d4k);
