-- Images from registries.

-- A container whose image is being pulled, or could not be. While its row is here nothing of the container was
-- ever sent to its server; with the pull's end the row goes.
CREATE TABLE image_pulls (
    container_id TEXT NOT NULL PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
    -- host[:port]/repository[:tag][@digest].
    reference TEXT NOT NULL,
    -- The server's, in OCI terms; empty: this program's.
    architecture TEXT NOT NULL,
    -- User and password for the registry as JSON, sealed for the container; empty: none.
    credentials TEXT NOT NULL DEFAULT '',
    -- queued, running or failed.
    state TEXT NOT NULL,
    -- The replica that is at it.
    claimed_by TEXT,
    bytes_done BIGINT NOT NULL DEFAULT 0,
    -- 0: not known yet.
    bytes_total BIGINT NOT NULL DEFAULT 0,
    -- Cause as JSON, of one that failed.
    failure TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX image_pulls_state ON image_pulls (state, created_at);
-- What users keep of the catalogue.
CREATE TABLE user_images (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, image_id)
);

CREATE INDEX user_images_image ON user_images (image_id);

-- One rating of each user for each image.
CREATE TABLE image_ratings (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    -- Hundredths, 0 to 500.
    rating BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, image_id)
);

CREATE INDEX image_ratings_image ON image_ratings (image_id);

-- A picture for people; an image without one has no row.
CREATE TABLE image_icons (
    image_id TEXT NOT NULL PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    -- Media type: image/png, image/jpeg, image/webp or image/gif.
    media_type TEXT NOT NULL,
    -- The file in base64.
    content TEXT NOT NULL
);
